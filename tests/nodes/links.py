"""Links to a real consumer, and an upper end that writes to real tables, for tests of sessions."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from uuid import uuid4

import msgspec
import pytest
from channels.testing import WebsocketCommunicator
from django.db import transaction

from nodes import membership
from nodes.callbacks import Callbacks, DesiredSet, NodeOrders, Verdict
from nodes.consumers import NodeConsumer
from nodes.intake import with_connection
from nodes.models import Node
from nodes.protocol import codec
from nodes.protocol.messages import (
    SUBPROTOCOL,
    Hello,
    LogChunk,
    LogEnd,
    Order,
    Report,
    Reports,
    Welcome,
)
from nodes.protocol.resources import Resources
from orchestrator import endpoint
from orchestrator.models import Execution
from orchestrator.planners import compute_forwarder
from orchestrator.planners.unsendable_orders import cannot_send
from tests import rows

HELLO = Hello(
    version=1,
    instance="i1",
    run=1,
    ledger="l1",
    boot="b1",
    resources=Resources(cpu=4000),
    attributes={"os": "linux"},
)
_names = count(1)


def hello(**changes):
    return msgspec.structs.replace(HELLO, **changes)


def joined(auto_approve=True):
    """A node and its credential."""
    token = membership.create_join_token(
        created_by=None, expires_in=timedelta(hours=1), auto_approve=auto_approve
    )
    return membership.enrol(token, f"n{next(_names)}")


def running(node, *, job=None, **differing):
    """An execution that runs on *node*."""
    job = job or rows.job(name="talks", count=3)
    return rows.execution(job, node, observed="running", cpu=0, memory=0, **differing)


class Above:
    """What stands above: reports become labels of their node, orders come from a list.

    A closed *gate* holds every batch back; *before* is called with each batch.
    """

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.before = lambda batch: None
        self.batches = []
        self.told = []
        self.hellos = []
        self.recorded = []
        self.listed = {}
        self.revisions = Counter()
        self.given_up = []
        self.refused = set()

    def callbacks(self):
        return Callbacks(
            receive=self.receive,
            orders=self.orders,
            desired=self.desired,
            reconnect=membership.reconnect,
            degraded=membership.set_degraded,
            cannot_send=self.cannot_send,
            record=lambda *fact: self.recorded.append(fact),
        )

    def receive(self, batch):
        self.entered.release()
        assert self.gate.wait(20)
        with transaction.atomic(durable=True):
            verdicts = membership.fence(batch)
            self.before(batch)
            for place, (frame, verdict) in enumerate(zip(batch, verdicts, strict=True)):
                if verdict is Verdict.ACCEPTED:
                    if any(it.execution in self.refused for it in frame.reports):
                        verdicts[place] = Verdict.REFUSED
                    else:
                        self._write(frame)
        self.batches.append(list(batch))
        return verdicts

    def _write(self, frame):
        node = Node.objects.select_for_update(no_key=True).get(pk=frame.node)
        for it in frame.reports:
            node.labels[it.execution] = f"{it.happened} {it.message}".strip()
        node.save(update_fields=["labels"])
        self.told.extend(frame.told)

    def order(self, node, *orders):
        """List orders; each gets the node's next revision."""
        for it in orders:
            self.revisions[node.pk] += 1
            listed = self.listed.setdefault(node.pk, [])
            listed.append(msgspec.structs.replace(it, rev=self.revisions[node.pk]))

    def orders(self, nodes):
        return [
            NodeOrders(node, new[-1].rev, new)
            for node, rev in nodes.items()
            if (new := tuple(it for it in self.listed.get(node, []) if it.rev > rev))
        ]

    def cannot_send(self, node, unsendable):
        """What cannot be sent is wanted no longer."""
        out = {it.execution for it in unsendable}
        self.given_up.extend(unsendable)
        self.listed[node] = [it for it in self.listed[node] if it.execution not in out]

    def desired(self, node, said, epoch):
        self.hellos.append(said)
        return DesiredSet(self.revisions[node], tuple(self.listed.get(node, [])))


class Orchestrator(Above):
    """What really stands above."""

    def callbacks(self):
        return Callbacks(
            receive=endpoint.receive,
            orders=compute_forwarder.orders,
            desired=compute_forwarder.desired,
            reconnect=endpoint.reconnect,
            degraded=endpoint.degraded,
            cannot_send=cannot_send,
            record=endpoint.record_node,
        )


class Link:
    """One websocket of one agent."""

    def __init__(self, application, credential, *, origin=None, protocols=(SUBPROTOCOL,)):
        headers = [(b"authorization", f"Node {credential}".encode())] if credential else []
        if origin:
            headers.append((b"origin", origin))
        self.socket = WebsocketCommunicator(
            application, "/ws/nodes/", headers=headers, subprotocols=list(protocols)
        )
        self.epoch = None
        self.seq = 0

    async def open(self):
        is_open, _ = await self.socket.connect(timeout=20)
        return is_open

    async def greet(self, said=HELLO) -> Welcome:
        assert await self.open()
        await self.say(said)
        welcome = await self.hear(Welcome)
        self.epoch = welcome.epoch
        return welcome

    async def say(self, message):
        await self.put(codec.encode(message))

    async def put(self, text):
        await self.socket.send_input({"type": "websocket.receive", "text": text})

    async def put_bytes(self, data):
        await self.socket.send_input({"type": "websocket.receive", "bytes": data})

    async def report(self, *reports, order_rev=0):
        self.seq += 1
        await self.say(Reports(self.epoch, self.seq, order_rev, reports))

    async def hear(self, kind=None):
        """The next message, or the next of its *kind*."""
        while True:
            event = await self.socket.receive_output(timeout=20)
            assert event["type"] == "websocket.send", event
            message = codec.decode_from_server(event["text"])
            if kind is None or isinstance(message, kind):
                return message

    async def closed(self):
        """The code that the link is closed with; what else comes before is left out."""
        while True:
            event = await self.socket.receive_output(timeout=20)
            if event["type"] == "websocket.close":
                assert event["reason"] or event["code"] == 1000
                return event["code"]

    async def send_log(self, watch, offset, data):
        """A piece of a log that is watched."""
        await self.put_bytes(codec.encode_chunk(LogChunk(self.epoch, watch.watch, offset, data)))

    async def end_log(self, watch, reason=""):
        await self.say(LogEnd(self.epoch, watch.watch, reason))

    async def leave(self):
        await self.socket.disconnect(timeout=20)


class World:
    """An application with its sessions, and the links opened to it."""

    def __init__(self, above, **options):
        self.above = above
        self.application = NodeConsumer.as_asgi(callbacks=above.callbacks(), **options)
        self.sessions = self.application.sessions
        self._links = []

    def link(self, credential, **options):
        link = Link(self.application, credential, **options)
        self._links.append(link)
        return link

    async def greeted(self, credential, said=HELLO) -> Link:
        link = self.link(credential)
        await link.greet(said)
        return link

    async def close(self):
        for link in self._links:
            if not link.socket.future.done():
                await link.leave()
        await self.sessions.close()


def play(
    scene: Callable[[World], Awaitable[None]], above: Above | None = None, **options: object
) -> Above:
    """Run *scene* in a loop of its own, with everything real but the sockets."""
    above = above or Above()

    async def run():
        async with opened(above, **options) as world, asyncio.timeout(60):
            await scene(world)

    asyncio.run(run())
    return above


@asynccontextmanager
async def opened(above: Above, **options: object) -> AsyncIterator[World]:
    world = World(above, **options)
    try:
        yield world
    finally:
        above.gate.set()
        await world.close()


@pytest.fixture
def above() -> Above:
    return Above()


@pytest.fixture
def node() -> Node:
    """A node that has joined, with its credential."""
    made, made.credential = joined()
    return made


@pytest.fixture(name="execution")
def _execution(node) -> Execution:
    """What runs on the node."""
    return running(node)


@pytest.fixture
async def world(above) -> AsyncIterator[World]:
    async with opened(above) as world:
        yield world


@pytest.fixture
async def link(world, node) -> Link:
    """The node's link, which has been greeted."""
    return await world.greeted(node.credential)


async def look(question):
    """Ask the database something, from a loop."""
    return await asyncio.to_thread(with_connection, question)


async def until(question):
    """Wait until the database says yes."""
    async with asyncio.timeout(20):
        while not await look(question):  # noqa: ASYNC110 - the database cannot call back
            await asyncio.sleep(0.01)


def execution():
    return str(uuid4())


__all__ = ["Above", "Link", "Order", "Report", "World", "hello", "joined", "look", "play", "until"]
