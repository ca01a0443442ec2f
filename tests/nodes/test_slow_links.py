"""Links that take their time: what belongs together stays so, whoever else has something to say."""

import asyncio
from datetime import timedelta

import pytest
from django.db.models import F
from django.db.models.functions import Now

from nodes.agent.core import Core
from nodes.agent.effects import Drop
from nodes.agent.records import Machine, Saved
from nodes.log_watch import NotConnected
from nodes.models import NodeHeartbeat
from nodes.protocol import codec
from nodes.protocol.messages import (
    WINDOW,
    Desired,
    Heartbeat,
    Order,
    Orders,
    Pulse,
    Reports,
    Task,
    Want,
    Watch,
    Welcome,
)
from nodes.protocol.resources import Resources
from tests.nodes.links import Above, execution, hello, joined, look, play, until

pytestmark = pytest.mark.django_db(transaction=True)


class SlowLink:
    """Takes nothing while its gate is closed."""

    def __init__(self):
        self.gate, self.asked = asyncio.Event(), asyncio.Event()
        self.heard = []
        self._changed = asyncio.Condition()

    async def send(self, text):
        self.asked.set()
        await self.gate.wait()
        await asyncio.sleep(0)
        async with self._changed:
            self.heard.append(codec.decode_from_server(text))
            self._changed.notify_all()

    async def close(self, code, sentence):
        pass

    async def until(self, kind):
        async with self._changed:
            await self._changed.wait_for(lambda: any(isinstance(it, kind) for it in self.heard))


def large(count, size=60_000):
    return [
        Order(execution(), Want.RUN, 0, Task("process", ("true",), {"X": "x" * size}))
        for _ in range(count)
    ]


def agent():
    machine = Machine("i1", 1, "l1", "b1", Resources(cpu=4000), {}, {"process"})
    core = Core(machine, Saved(), lambda execution: (False, None))
    core.opened(0.0)
    return core


def test_nobody_speaks_before_the_whole_welcome_is_said():
    above, (node, _) = Above(), joined()
    above.order(node, *large(10))
    link = None

    async def scene(world):
        nonlocal link
        link, sessions = SlowLink(), world.sessions
        sessions.start()
        beginning = asyncio.ensure_future(
            sessions.begin(node.pk, hello(), send=link.send, close=link.close)
        )
        await link.asked.wait()
        above.order(node, *large(2))
        sessions.wake()
        watching = asyncio.ensure_future(anext(sessions.watch(execution(), node.pk, "stdout")))
        await asyncio.sleep(0)
        link.gate.set()
        await beginning
        await link.until(Orders)
        with pytest.raises(NotConnected):
            await watching

    play(scene, above)
    assert [type(message) for message in link.heard] == [Welcome, Desired, Desired, Orders]
    core = agent()
    for message in link.heard:
        assert not [it for it in core.receive(message, 0.0) if isinstance(it, Drop)]
    assert core.order_rev == 12


def test_frames_of_orders_stay_in_order_when_an_acknowledgement_comes_in_between():
    above, (node, _) = Above(), joined()
    link = None

    async def scene(world):
        nonlocal link
        link, sessions = SlowLink(), world.sessions
        sessions.start()
        link.gate.set()
        conversation = await sessions.begin(node.pk, hello(), send=link.send, close=link.close)
        link.gate.clear()
        link.asked.clear()
        above.order(node, *large(WINDOW + 3, 150_000))
        sessions.wake()
        await link.asked.wait()
        taken = Reports(conversation.epoch, 1, 0)
        watching = sessions.watch(execution(), node.pk, "stdout")
        others = [
            asyncio.ensure_future(it)
            for it in (
                conversation.hear(taken, 0.0),
                conversation.hear(Heartbeat(conversation.epoch, 0, ""), 0.0),
                anext(watching),
            )
        ]
        await asyncio.sleep(0)
        link.gate.set()
        await asyncio.gather(*others[:2])
        await link.until(Watch)
        others[2].cancel()

    play(scene, above)
    frames = [message for message in link.heard if isinstance(message, Orders)]
    assert [(it.after, it.order_rev) for it in frames] == [(i, i + 1) for i in range(WINDOW)]
    assert any(isinstance(message, Pulse) for message in link.heard)


def test_a_late_word_over_a_replaced_link_keeps_no_node_alive():
    (node, _), (other, _) = joined(), joined()

    def seen(it):
        row = NodeHeartbeat.objects.annotate(age=Now() - F("seen_at")).get(node=it)
        return row.age < timedelta(hours=1)

    async def scene(world):
        sessions = world.sessions
        sessions.start()
        links = []
        for it in (node, node, other):
            link = SlowLink()
            link.gate.set()
            links.append(await sessions.begin(it.pk, hello(), send=link.send, close=link.close))
        replaced, _, living = links
        assert replaced.is_over
        for late in ([], [replaced]):
            await look(lambda: NodeHeartbeat.objects.update(seen_at=Now() - timedelta(days=1)))
            for conversation in (*late, living):
                sessions.heard(conversation)
            await until(lambda: seen(other))
        assert not await look(lambda: seen(node))

    play(scene)
