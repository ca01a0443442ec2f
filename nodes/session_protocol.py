"""One session as the orchestrator's end sees it: what may be said next, and what follows.

Knows neither sockets nor the database.  Frames of reports are handed to the intake and
acknowledged when it has settled them; orders come from the pump in ``sessions``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import msgspec
import structlog

from .callbacks import Inbound, Verdict
from .intake import Settled
from .log_watch import Watches
from .orders import Comparison, EncodedOrder, NeverSent, Outgoing
from .protocol import codec
from .protocol.messages import (
    WINDOW,
    Ack,
    Close,
    Desired,
    FromNode,
    FromServer,
    Goodbye,
    Heartbeat,
    Hello,
    LogChunk,
    LogEnd,
    Order,
    Pulse,
    Reports,
    Want,
    Welcome,
)

log = structlog.get_logger(__name__)

HEARTBEAT = 10.0
#: Heartbeats a second that are taken; an agent sends one in ten seconds.
MOST_BEATS = 5
#: A node that takes no orders for this long, though it is told some, is stuck.
STALLED_AFTER = 60.0

_CLOSES = {
    Verdict.FENCED: (Close.FENCED, "a newer session of this node exists"),
    Verdict.OUT_OF_SEQUENCE: (Close.OUT_OF_SEQUENCE, "a frame is missing before this one"),
    Verdict.REFUSED: (Close.REFUSED, "what the node says cannot be written"),
    Verdict.LATER: (Close.SHUTTING_DOWN, "the database did not write it in time: say it again"),
}


class Refusal(Exception):
    """The session ends: a close code, and the reason as a sentence."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class LiveSession:
    """The state of one session, from its welcome on.

    *send* puts a text frame on the link, *close* closes it; *submit* hands a frame to the intake,
    *ask_again* has the full desired set told.

    Whatever is said is said under one lock, and so is the change of the books that it follows
    from: frames that belong together stay so, and in order, however long *send* takes.
    """

    def __init__(
        self,
        node: UUID,
        hello: Hello,
        epoch: int,
        *,
        send: Callable[[str], Awaitable[None]],
        close: Callable[[int, str], Awaitable[None]],
        submit: Callable[[Inbound], None],
        ask_again: Callable[[LiveSession], None],
    ) -> None:
        self.node, self.epoch = node, epoch
        self.outgoing = Outgoing(epoch, 0, hello.holds)
        self.watches = Watches(epoch, self.say)
        self.in_flight = 0
        self.is_over = False
        self.running: int | None = None  # Until the first heartbeat says it.
        self.load: float | None = None
        self.degraded = hello.degraded
        self._hello = hello
        self._send, self._close = send, close
        self._speaking = asyncio.Lock()
        self._submit, self._ask_again = submit, ask_again
        self._received = self._acked = 0
        self._second, self._beats = 0, 0
        self._stuck_since: float | None = None

    # --- said by the orchestrator ----------------------------------------------------------------

    async def welcome(
        self, order_rev: int, desired: Sequence[EncodedOrder], *, approved: bool
    ) -> None:
        """Say the first words: the epoch, and the full desired set."""
        async with self._speaking:
            first, *rest = self.outgoing.replace(order_rev, desired)
            await self._put(
                Welcome(
                    epoch=self.epoch,
                    node=str(self.node),
                    order_rev=order_rev,
                    desired=first,
                    heartbeat=HEARTBEAT,
                    approved=approved,
                    more=bool(rest),
                )
            )
            await self._put_desired(order_rev, rest)

    async def tell_again(self, order_rev: int, desired: Sequence[EncodedOrder]) -> None:
        """Say the full desired set anew, since both ends differ."""
        async with self._speaking:
            await self._put_desired(order_rev, self.outgoing.replace(order_rev, desired))

    async def tell(self, after: int, order_rev: int, orders: Sequence[EncodedOrder]) -> None:
        """Say what is new since revision *after*, as far as the node's window has room.

        The rest waits.  Nothing is said when more was said meanwhile: the next look knows more.
        """
        async with self._speaking:
            if after == self.outgoing.sent_rev:
                for frame in self.outgoing.add(order_rev, orders):
                    await self._put(frame)

    async def settle(self, settled: Sequence[Settled]) -> None:
        """What became of the frames that were submitted: acknowledge them, or end."""
        for frame, verdict in settled:
            self.in_flight -= 1
            if verdict in _CLOSES:
                await self.end(*_CLOSES[verdict])
                return
            self._acked = max(self._acked, frame.seq)
        await self.say(Ack(self.epoch, self._acked))

    async def say(self, message: FromServer) -> None:
        """Say one thing, after what is being said."""
        async with self._speaking:
            await self._put(message)

    async def end(self, code: int, sentence: str) -> None:
        """Close the link; nothing more is said over it."""
        if not self.is_over:
            self.is_over = True
            await self._close(code, sentence)

    def hello_now(self) -> Hello:
        """What the node would say if it said hello now, as far as is known here.

        It may be told more before this is read, so what is not named may be held all the same.
        """
        return msgspec.structs.replace(
            self._hello,
            order_rev=self.outgoing.taken_rev,
            holds=self.outgoing.holds(),
            partial=True,
        )

    def is_stuck(self, now: float) -> bool:
        """Whether the node has taken none of its orders for too long."""
        if not self.outgoing.unacknowledged:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        return self._stuck_since is not None and now - self._stuck_since > STALLED_AFTER

    async def _put(self, message: FromServer) -> None:
        if not self.is_over:
            await self._send(codec.encode(message))

    async def _put_desired(self, order_rev: int, pieces: Sequence[tuple[Order, ...]]) -> None:
        for number, piece in enumerate(pieces, start=1):
            await self._put(Desired(self.epoch, order_rev, piece, more=number < len(pieces)))

    # --- said by the node ------------------------------------------------------------------------

    async def hear(self, message: FromNode, now: float) -> None:
        """Take in one message; raises Refusal when it ends the session."""
        if isinstance(message, Hello):
            raise Refusal(Close.OUT_OF_SEQUENCE, "a second hello on one link")
        self._check_epoch(message.epoch)
        match message:
            case Reports():
                await self._take_reports(message)
            case Heartbeat():
                await self._take_heartbeat(message, now)
            case LogEnd():
                self.watches.ended(message)
            case Goodbye():
                log.info("node says goodbye", node=str(self.node), reason=message.reason)
                raise Refusal(1000, "goodbye")

    def hear_chunk(self, chunk: LogChunk) -> None:
        """Take in a piece of a log; raises Refusal when it was not asked for."""
        self._check_epoch(chunk.epoch)
        if not self.watches.feed(chunk):
            raise Refusal(Close.TOO_FAST, "more of a log was sent than had been granted")

    def _check_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            sentence = f"the message is of epoch {epoch}, this session is {self.epoch}"
            raise Refusal(Close.FENCED, sentence)

    async def _take_reports(self, frame: Reports) -> None:
        if frame.seq <= self._received:
            # If it is not yet settled, its acknowledgement is still to come.
            if frame.seq <= self._acked:
                await self.say(Ack(self.epoch, self._acked))
            return
        if frame.seq != self._received + 1:
            sentence = f"frame {frame.seq} came after {self._received}"
            raise Refusal(Close.OUT_OF_SEQUENCE, sentence)
        if self.in_flight >= WINDOW:
            sentence = f"more than {WINDOW} frames were sent without waiting"
            raise Refusal(Close.TOO_FAST, sentence)
        told = self._taken(frame.order_rev)
        self._received = frame.seq
        self.outgoing.reported(frame.items)
        self.in_flight += 1
        self._submit(Inbound(self.node, self.epoch, frame.seq, frame.order_rev, told, frame.items))
        if told:
            self._stuck_since = None
        async with self._speaking:
            for waiting in self.outgoing.release():
                await self._put(waiting)

    def _taken(self, order_rev: int) -> tuple[tuple[str, Want], ...]:
        try:
            return self.outgoing.taken(order_rev)
        except NeverSent:
            sentence = f"order revision {order_rev} was never sent"
            raise Refusal(Close.OUT_OF_SEQUENCE, sentence) from None

    async def _take_heartbeat(self, beat: Heartbeat, now: float) -> None:
        if int(now) != self._second:
            self._second, self._beats = int(now), 0
        self._beats += 1
        if self._beats > MOST_BEATS:
            raise Refusal(Close.TOO_FAST, f"more than {MOST_BEATS} heartbeats within a second")
        self.running, self.load, self.degraded = beat.running, beat.load, beat.degraded
        comparison = self.outgoing.compare(beat.order_rev, beat.digest)
        if comparison is Comparison.STILL_DIFFERS:
            log.error("digests differ", node=str(self.node), after="resync")
            raise Refusal(Close.SHUTTING_DOWN, "both ends differ: say hello again")
        differs = comparison is Comparison.DIFFERS
        await self.say(Pulse(self.epoch, resync=differs))
        if differs:
            log.warning("digests differ", node=str(self.node))
            self._ask_again(self)
