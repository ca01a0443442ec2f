"""Sessions as they should go: welcome, orders, reports, heartbeats, and what goes wrong below."""

import asyncio
import threading

import pytest
from django.db import OperationalError, connection, transaction

from nodes import membership
from nodes.models import Node, NodeHeartbeat
from nodes.order_lookup import OrderLookup
from nodes.protocol.messages import (
    BATCH,
    WINDOW,
    Ack,
    Close,
    Desired,
    Goodbye,
    Happened,
    Heartbeat,
    Held,
    Holding,
    Order,
    Orders,
    Pulse,
    Report,
    Reports,
    Task,
    Want,
)
from nodes.protocol.session import digest
from nodes.sessions import Sessions
from orchestrator.models import Event
from tests import rows
from tests.nodes.links import (
    Above,
    Orchestrator,
    execution,
    hello,
    joined,
    look,
    opened,
    play,
    until,
)

pytestmark = pytest.mark.django_db(transaction=True)


def order(want=Want.RUN, size=0, name=None):
    task = Task("process", ("true",), {"X": "x" * size})
    return Order(name or execution(), want, 0, task)


def labels(node):
    return Node.objects.get(pk=node.pk).labels


# --- the welcome -------------------------------------------------------------------------------


async def test_a_welcome_brings_the_epoch_and_the_desired_set(above, node, world):
    above.order(node, order(), order(Want.STOP))
    welcome = await world.link(node.credential).greet()
    assert (welcome.epoch, welcome.order_rev, welcome.approved) == (1, 2, True)
    assert [it.want for it in welcome.desired] == [Want.RUN, Want.STOP]
    assert not welcome.more


async def test_a_desired_set_that_is_too_large_comes_in_parts(above, node, world):
    above.order(node, *(order(size=60_000) for _ in range(10)))
    link = world.link(node.credential)
    part = await link.greet()
    items = list(part.desired)
    while part.more:
        part = await link.hear(Desired)
        items += part.items
    assert [it.rev for it in items] == list(range(1, 11))
    await link.report(order_rev=10)
    await link.hear(Ack)
    assert len(above.told) == 10


def test_a_node_that_waits_for_approval_is_told_nothing_until_it_has_it():
    above, (node, credential) = Above(), joined(auto_approve=False)

    async def scene(world):
        link = world.link(credential)
        welcome = await link.greet()
        assert (welcome.approved, welcome.desired) == (False, ())
        assert not above.hellos
        await look(lambda: membership.approve(node.pk, actor="ada"))
        above.order(node, order())
        world.sessions.wake()
        assert len((await link.hear(Orders)).items) == 1

    play(scene, above)


async def test_a_newer_link_ends_the_older_one(node, world):
    older, newer = world.link(node.credential), world.link(node.credential)
    await older.greet()
    assert (await newer.greet()).epoch == 2
    assert await older.closed() == Close.FENCED
    await newer.report()
    assert (await newer.hear(Ack)).epoch == 2


async def test_a_link_superseded_elsewhere_is_found_out_at_its_next_word(node, link):
    await look(lambda: membership.greet(node.pk, hello(), "another", record=print))
    await link.report()
    assert await link.closed() == Close.FENCED


# --- reports -----------------------------------------------------------------------------------


async def test_reports_are_acknowledged_when_their_effects_are_committed(above, node, world):
    above.gate.clear()
    it = execution()
    link = await world.greeted(node.credential)
    await link.report(Report(it, Happened.START))
    assert await asyncio.to_thread(above.entered.acquire, timeout=20)
    assert await look(lambda: labels(node)) == {}
    above.gate.set()
    assert await link.hear(Ack) == Ack(link.epoch, 1)
    assert await look(lambda: labels(node)) == {it: "start"}


async def test_a_repeated_frame_is_acknowledged_and_has_no_effect(node, link):
    it = execution()
    await link.report(Report(it, Happened.START))
    await link.hear(Ack)
    await link.say(Reports(link.epoch, 1, 0, (Report(it, Happened.FAIL),)))
    assert await link.hear(Ack) == Ack(link.epoch, 1)
    assert await look(lambda: labels(node)) == {it: "start"}


def test_what_arrives_during_a_flush_makes_one_batch_and_one_acknowledgement_each():
    above, nodes = Above(), [joined() for _ in range(5)]

    async def scene(world):
        links = [world.link(credential) for _, credential in nodes]
        for link in links:
            await link.greet()
        above.gate.clear()
        await links[0].report()
        assert await asyncio.to_thread(above.entered.acquire, timeout=20)
        for link in links:
            for _ in range(3):
                await link.report(Report(execution(), Happened.START))
        above.gate.set()
        seqs = []
        for link in links:
            last = 4 if link is links[0] else 3
            while (ack := await link.hear(Ack)).seq != last:
                seqs.append(ack.seq)
        assert seqs in ([], [1])

    play(scene, above)
    assert len(above.batches[0]) == 1
    assert len(above.batches) <= 4


async def test_texts_with_nul_are_stored_without_it(node, world):
    it = execution()
    link = await world.greeted(node.credential, hello(boot="b\0"))
    await link.report(Report(it, Happened.FAIL, message="a\0b"))
    await link.hear(Ack)
    assert await look(lambda: labels(node)) == {it: "fail a\ufffdb"}


def test_a_poisonous_frame_ends_its_own_session_only():
    above, nodes = Above(), [joined() for _ in range(3)]
    poison = execution()

    def before(batch):
        if any(it.execution == poison for frame in batch for it in frame.reports):
            raise ValueError("poison")

    above.before = before

    async def scene(world):
        links = [world.link(credential) for _, credential in nodes]
        for link in links:
            await link.greet()
        above.gate.clear()
        await links[0].report()
        assert await asyncio.to_thread(above.entered.acquire, timeout=20)
        for link in links:
            await link.report(Report(execution(), Happened.START))
        await links[1].report(Report(poison, Happened.START))
        await links[1].report(Report(execution(), Happened.START))
        await links[2].report(Report(execution(), Happened.START))
        above.gate.set()
        assert await links[1].closed() == Close.REFUSED
        for link in (links[0], links[2]):
            while (await link.hear(Ack)).seq != 2:
                pass

    play(scene, above)
    assert [len(labels(node)) for node, _ in nodes] == [1, 1, 2]


async def test_a_database_that_is_away_delays_frames_and_loses_none(above, node, world):
    failures = []

    def before(batch):
        if len(failures) < 3:
            failures.append(len(batch))
            raise OperationalError("terminating connection due to administrator command")

    above.before = before
    link = await world.greeted(node.credential)
    for _ in range(3):
        await link.report(Report(execution(), Happened.START))
    while (await link.hear(Ack)).seq != 3:
        pass
    assert await look(lambda: len(labels(node))) == 3


async def test_a_connection_that_the_server_ended_is_replaced(above, node, world):
    killed = []

    def before(batch):
        if not killed:
            killed.append(True)
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    above.before = before
    link = await world.greeted(node.credential)
    await link.report(Report(execution(), Happened.START))
    await link.hear(Ack)
    assert await look(lambda: len(labels(node))) == 1


def test_a_frame_that_meets_a_held_lock_is_said_again_and_never_refused():
    above, nodes = Above(), [joined() for _ in range(2)]
    held = nodes[0][0]
    let_go = threading.Event()

    def before(batch):
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '10ms'")

    def hold(is_held):
        with transaction.atomic():
            Node.objects.select_for_update().get(pk=held.pk)
            is_held.set()
            assert let_go.wait(20)

    above.before = before

    async def scene(world):
        links = [world.link(credential) for _, credential in nodes]
        for link in links:
            await link.greet()
        is_held = threading.Event()
        holder = asyncio.ensure_future(look(lambda: hold(is_held)))
        assert await asyncio.to_thread(is_held.wait, 20)
        above.gate.clear()
        for link in links:
            await link.report(Report(execution(), Happened.START))
        above.gate.set()
        assert await links[1].hear(Ack) == Ack(links[1].epoch, 1)
        assert await links[0].closed() == Close.SHUTTING_DOWN
        let_go.set()
        await holder
        again = await world.greeted(nodes[0][1])
        await again.report(Report(execution(), Happened.START))
        assert await again.hear(Ack) == Ack(again.epoch, 1)
        assert Close.REFUSED not in world.sessions.refusals

    play(scene, above)
    assert [len(labels(node)) for node, _ in nodes] == [1, 1]


async def test_a_mistake_in_what_all_share_ends_the_sessions_and_they_go_on_anew(above, node):
    receive, mistakes = above.receive, [()]
    above.receive = lambda batch: mistakes.pop() if mistakes else receive(batch)
    async with opened(above) as world:
        link = await world.greeted(node.credential)
        await link.report(Report(execution(), Happened.START))
        await link.closed()
        again = await world.greeted(node.credential)
        await again.report(Report(execution(), Happened.START))
        assert await again.hear(Ack)


# --- orders ------------------------------------------------------------------------------------


async def test_orders_go_out_after_a_hint_and_what_was_taken_goes_up(above, node, world, link):
    one, two = order(Want.BID), order()
    above.order(node, one, two)
    world.sessions.wake()
    frame = await link.hear(Orders)
    assert (frame.after, frame.order_rev, len(frame.items)) == (0, 2, 2)
    await link.report(order_rev=2)
    await link.hear(Ack)
    assert above.told == [(one.execution, Want.BID), (two.execution, Want.RUN)]


async def test_orders_come_after_a_lost_hint_too(above, node, link):
    above.order(node, order())
    assert await link.hear(Orders)


async def test_many_orders_come_in_consecutive_frames_within_the_window(above, node, world, link):
    total = BATCH * (WINDOW + 2)
    above.order(node, *(Order(execution(), Want.STOP, 0) for _ in range(total)))
    world.sessions.wake()
    taken = 0
    for _ in range(WINDOW - 1):
        frame = await link.hear(Orders)
        assert frame.after == taken
        taken = frame.order_rev
    # The welcome is not acknowledged either: the window is full.
    assert await link.socket.receive_nothing(timeout=0.05)
    while taken < total:
        await link.report(order_rev=taken)
        frame = await link.hear(Orders)
        assert frame.after == taken
        taken = frame.order_rev


async def test_an_order_that_fits_no_frame_is_given_up_once_and_delays_no_other(
    above, node, world, link
):
    huge, good, later = order(size=300_000), order(), order()
    for news in ((huge, good), (later,)):
        above.order(node, *news)
        world.sessions.wake()
        assert [it.execution for it in (await link.hear(Orders)).items] == [news[-1].execution]
    assert [it.execution for it in above.given_up] == [huge.execution]


async def test_an_order_of_the_desired_set_that_fits_no_frame_is_given_up_too(above, node, world):
    huge, good = order(size=300_000), order()
    above.order(node, huge, good)
    welcome = await world.link(node.credential).greet()
    assert [it.execution for it in welcome.desired] == [good.execution]
    assert [it.execution for it in above.given_up] == [huge.execution]


def test_a_task_of_an_earlier_release_that_fits_no_frame_ends_its_execution():
    node, credential = joined()
    job, good = rows.job(), rows.job()
    [version] = job.versions.all()
    version.spec["task"]["command"] = ["echo", "\x01" * 60_000]
    job.versions.create(number=2, spec=version.spec, digest="2", actor="test")
    huge = rows.execution(job, node, version=2, cpu=0, memory=0)

    async def scene(world):
        link = world.link(credential)
        assert (await link.greet()).desired == ()
        later = await look(lambda: rows.execution(good, node, cpu=0, memory=0))
        world.sessions.wake()
        assert [it.execution for it in (await link.hear(Orders)).items] == [str(later.pk)]

    play(scene, Orchestrator())
    huge.refresh_from_db()
    assert (huge.observed, huge.code, huge.reserved) == ("cancelled", "order-too-large", False)
    assert "bytes, and a node can be sent 261120" in huge.message


async def test_what_cannot_be_given_up_keeps_no_other_order_from_its_node(above, node):
    good = order()

    def cannot_send(node, orders):
        raise OperationalError("canceling statement due to lock timeout")

    above.cannot_send = cannot_send
    async with opened(above) as world:
        link = await world.greeted(node.credential)
        above.order(node, order(size=300_000), good)
        world.sessions.wake()
        assert [it.execution for it in (await link.hear(Orders)).items] == [good.execution]


def test_what_could_not_be_given_up_is_given_up_at_a_later_look():
    above, (node, _) = Above(), joined()
    huge, give_up = order(size=300_000), above.cannot_send
    troubles = [OperationalError("canceling statement due to lock timeout")] * 2

    def cannot_send(node, orders):
        if troubles:
            raise troubles.pop()
        give_up(node, orders)

    above.cannot_send = cannot_send
    lookup = OrderLookup(above.callbacks(), again=0.0)
    above.order(node, huge, order())
    [(_, sent, _)] = lookup.pending({node.pk: 0})
    for _ in range(3):
        assert lookup.pending({node.pk: sent}) == []
    assert [it.execution for it in above.given_up] == [huge.execution]


# --- heartbeats --------------------------------------------------------------------------------


async def test_a_heartbeat_is_answered_and_written(node, link):
    await link.report()
    await link.hear(Ack)
    await link.say(Heartbeat(link.epoch, 0, digest([]), running=3, load=0.5))
    assert await link.hear(Pulse) == Pulse(link.epoch)
    await until(lambda: NodeHeartbeat.objects.get(node=node).running == 3)


def test_a_node_is_degraded_for_as_long_as_its_heartbeats_say_so():
    node, credential = joined()

    def says(why):
        return lambda: Node.objects.get(pk=node.pk).degraded == why

    async def scene(world):
        link = await world.greeted(credential)
        await link.say(Heartbeat(link.epoch, 0, digest([]), degraded="its disk is full"))
        await until(says("its disk is full"))
        await link.say(Heartbeat(link.epoch, 0, digest([])))
        await until(says(""))

    play(scene, Orchestrator())
    assert list(Event.objects.order_by("pk").values_list("what", flat=True)) == ["degraded"] * 2


async def test_ends_that_differ_are_brought_together_by_the_full_set_and_then_by_a_hello(
    above, node, world
):
    above.order(node, order(Want.RUN, name=(it := execution())))
    link = await world.greeted(node.credential)
    await link.report(Report(it, Happened.START), order_rev=1)
    await link.hear(Ack)
    beat = Heartbeat(link.epoch, 1, digest([]))
    await link.say(beat)
    assert not (await link.hear(Pulse)).resync
    await link.say(beat)
    assert (await link.hear(Pulse)).resync
    assert [it.want for it in (await link.hear(Desired)).items] == [Want.RUN]
    assert above.hellos[-1].holds == (Held(it, Holding.RUNNING),)
    await link.report(order_rev=1)
    await link.hear(Ack)
    await link.say(beat)
    await link.say(beat)
    assert await link.closed() == Close.SHUTTING_DOWN


async def test_a_node_given_up_meanwhile_is_asked_to_say_hello_again(node, world, link):
    def give_up():
        Node.objects.filter(pk=node.pk).update(connection="disconnected")
        Node.objects.filter(pk=node.pk).update(connection="lost")

    await look(give_up)
    await link.say(Heartbeat(link.epoch, 0, ""))
    assert await link.closed() == Close.SHUTTING_DOWN
    await world.greeted(node.credential)
    assert await look(lambda: Node.objects.get(pk=node.pk).connection) == "connected"


@pytest.mark.parametrize("end", [membership.revoke, lambda pk: membership.reject(pk, actor="ada")])
async def test_a_node_that_is_shut_out_loses_its_link_at_its_next_word(end, node, world, link):
    await look(lambda: end(node.pk))
    await link.say(Heartbeat(link.epoch, 0, ""))
    assert await link.closed() == Close.FENCED
    assert not await world.link(node.credential).open()


# --- leaving -----------------------------------------------------------------------------------


async def test_a_link_that_closes_leaves_its_node_disconnected(node, world, link):
    await link.leave()
    await until(lambda: Node.objects.get(pk=node.pk).connection == "disconnected")
    assert len(world.sessions) == 0


async def test_a_goodbye_ends_the_link_in_peace(node, world, link):
    await link.say(Goodbye(link.epoch, "restarting"))
    assert await link.closed() == 1000
    await link.leave()
    assert await look(lambda: Node.objects.get(pk=node.pk).connection) == "disconnected"
    assert not world.sessions.refusals


async def test_sessions_are_counted(world, link):
    await link.report(Report(execution(), Happened.START))
    await link.hear(Ack)
    counted = world.sessions.statistics()
    assert (counted["sessions"], counted["frames"], counted["reports"]) == (1, 1, 1)


def test_a_mistake_above_ends_the_session_it_concerns_and_leaves_no_trace():
    above, (node, credential), (_, other) = Above(), joined(), joined()
    above.listed[node.pk] = ["no order at all"]

    async def scene(world):
        link, healthy = world.link(credential), world.link(other)
        await link.open()
        await link.say(hello())
        assert await link.closed() == Close.SHUTTING_DOWN
        assert len(world.sessions) == 0
        await healthy.greet()

    play(scene, above)


def test_orders_that_cannot_be_read_for_one_node_reach_the_others():
    above, (poor, credential), (rich, other) = Above(), joined(), joined()

    async def scene(world):
        links = [world.link(credential), world.link(other)]
        for link in links:
            await link.greet()
        above.listed[poor.pk] = ["no order at all"]
        above.order(rich, order())
        world.sessions.wake()
        assert await links[1].hear(Orders)

    play(scene, above)


@pytest.mark.parametrize("later", range(6))
async def test_sessions_close_also_when_they_are_woken_in_that_moment(later):
    sessions = Sessions(Above().callbacks())
    sessions.start()
    for _ in range(5):
        await asyncio.sleep(0)
    sessions.wake()
    for _ in range(later):
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await sessions.close()
