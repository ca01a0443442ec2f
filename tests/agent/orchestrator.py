"""A small orchestrator for tests: it speaks ``nodes.protocol`` over real websockets.

It keeps no state of its own beyond what it was told to order and what was reported; the test
decides when to acknowledge, cut or greet anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from nodes.protocol import codec
from nodes.protocol.messages import (
    MAX_FRAME,
    SUBPROTOCOL,
    Ack,
    FromNode,
    FromServer,
    Happened,
    Heartbeat,
    Hello,
    LogChunk,
    Order,
    Orders,
    Pulse,
    Report,
    Reports,
    Want,
    Welcome,
)

FINAL = {Happened.DECLINE, Happened.COMPLETE, Happened.FAIL, Happened.CANCEL}


class Orchestrator:
    """Serves one node on a port of its own."""

    def __init__(self, *, heartbeat: float = 5.0, acknowledges: bool = True) -> None:
        self.heartbeat, self.acknowledges = heartbeat, acknowledges
        self.epoch, self.order_rev = 0, 0
        self.desired: dict[str, Order] = {}
        self.reports: list[Report] = []
        self.frames: list[Reports] = []
        self.messages: list[FromNode] = []
        self.chunks: list[LogChunk] = []
        self.headers: list[str] = []
        self.socket: ServerConnection | None = None
        self._server: Server | None = None
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Orchestrator:
        self._server = await serve(
            self._converse,
            "127.0.0.1",
            0,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=MAX_FRAME,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def order(self, *orders: Order) -> None:
        """Want this from now on, and say so if the node is there."""
        after = self.order_rev
        self.order_rev += len(orders)
        for order in orders:
            self.desired[order.execution] = order
        if self.epoch and self.socket is not None:
            await self.send(Orders(self.epoch, after, self.order_rev, orders))

    async def send(self, message: FromServer) -> None:
        if self.socket is not None:
            try:
                await self.socket.send(codec.encode(message))
            except ConnectionClosed:
                self.socket = None

    async def cut(self) -> None:
        """End the link as a broken network does."""
        if self.socket is not None:
            self.socket.transport.abort()
            self.socket = None

    async def until(self, question: Callable[[], object], within: float = 20.0) -> None:
        """Wait for what a message makes true."""
        async with asyncio.timeout(within), self._changed:
            await self._changed.wait_for(question)

    def of(self, execution: str) -> list[Report]:
        return [report for report in self.reports if report.execution == execution]

    def final(self, execution: str) -> Report | None:
        return next((r for r in self.of(execution) if r.happened in FINAL), None)

    async def ended(self, *executions: str, within: float = 20.0) -> list[Report]:
        await self.until(lambda: all(self.final(one) for one in executions), within)
        return [report for one in executions if (report := self.final(one))]

    async def _converse(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.headers.append(socket.request.headers.get("Authorization", ""))
        try:
            async for frame in socket:
                if isinstance(frame, bytes):
                    self.chunks.append(codec.decode_chunk(frame))
                else:
                    await self._take(socket, codec.decode_from_node(frame))
                async with self._changed:
                    self._changed.notify_all()
        except ConnectionClosed:
            pass
        finally:
            if self.socket is socket:
                self.socket = None

    async def _take(self, socket: ServerConnection, message: FromNode) -> None:
        self.messages.append(message)
        match message:
            case Hello():
                self.socket = socket
                self.epoch += 1
                orders = tuple(self.desired.values())
                await self.send(
                    Welcome(self.epoch, "n", self.order_rev, orders, self.heartbeat, True)
                )
            case Reports():
                self.frames.append(message)
                self.reports += message.items
                for report in message.items:
                    if report.happened in FINAL:
                        self.desired.pop(report.execution, None)
                if self.acknowledges:
                    await self.send(Ack(message.epoch, message.seq))
            case Heartbeat():
                await self.send(Pulse(message.epoch))


def run(execution: str, *command: str, **rest: object) -> Order:
    return _order(execution, Want.RUN, command, **rest)


def bid(execution: str, *command: str, **rest: object) -> Order:
    return _order(execution, Want.BID, command, **rest)


def reject(execution: str) -> Order:
    return Order(execution, Want.REJECT, 0)


def stop(execution: str) -> Order:
    return Order(execution, Want.STOP, 0)


def _order(execution: str, want: Want, command: tuple[str, ...], **rest: object) -> Order:
    from nodes.protocol.messages import Task
    from nodes.protocol.resources import Resources

    task = Task(driver="process", command=command or ("true",))
    values = {"resources": Resources(cpu=10), "task": task, **rest}
    return Order(execution, want, 0, **values)  # type: ignore[arg-type]
