"""What one session has told its node, and what the node has taken of it.  Pure.

The session sends numbered frames of orders and keeps the unacknowledged ones within WINDOW; the
node acknowledges by naming the order revision it has durably taken.  Beside that this keeps what
the node should hold, to compare its digest with at each heartbeat.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import cast

from msgspec import Raw

from .callbacks import Unsendable
from .protocol import codec
from .protocol.messages import (
    BATCH,
    MAX_FRAME,
    WINDOW,
    Happened,
    Held,
    Holding,
    Order,
    Orders,
    Report,
    Want,
)
from .protocol.session import digest

#: The longest order that can be sent: a frame takes something beside its orders.
LARGEST_ORDER = MAX_FRAME - 1024
#: Heartbeats in a row that must differ before it counts: one may cross a report under way.
PATIENCE = 2

_ENDS = frozenset({Happened.DECLINE, Happened.COMPLETE, Happened.FAIL, Happened.CANCEL})
_STATES = {
    Happened.BID: Holding.BID,
    Happened.PREPARE: Holding.PREPARING,
    Happened.START: Holding.RUNNING,
    Happened.PUBLISH: Holding.RUNNING,
}


class Comparison(Enum):
    """What a heartbeat's digest says about what both ends believe."""

    UNKNOWN = auto()  # orders or reports may be under way
    EQUAL = auto()
    DIFFERS = auto()  # for so long that it is no chance: tell the full desired set
    STILL_DIFFERS = auto()  # although the full set was told: only a new hello can help


class NeverSent(Exception):
    """The node acknowledges order revision {rev}, which it was never sent."""


@dataclass(frozen=True, slots=True)
class EncodedOrder:
    """An order as it goes on the wire; ``text`` is copied into the frame as it is."""

    execution: str
    want: Want
    rev: int
    text: Raw


@dataclass(frozen=True)
class _Sent:
    order_rev: int
    told: tuple[tuple[str, Want], ...]


class Outgoing:
    """The books of one session's orders.  *holds* is what the node said it holds."""

    def __init__(self, epoch: int, order_rev: int, holds: Iterable[Held] = ()) -> None:
        self.epoch = epoch
        #: The newest revision in any frame sent; what is asked for next is above it.
        self.sent_rev = order_rev
        #: The newest revision that the node has taken.
        self.taken_rev = 0
        self._waiting: deque[tuple[_Sent, Orders]] = deque()
        self._under_way: deque[_Sent] = deque()
        live = (it for it in holds if it.state is not Holding.ENDED)
        self._holds: dict[str, Holding] = {it.execution: it.state for it in live}
        self._differed = 0
        self._was_told_again = False

    # --- telling -------------------------------------------------------------------------------

    def replace(self, order_rev: int, orders: Sequence[EncodedOrder]) -> list[tuple[Order, ...]]:
        """Tell the full desired set as of *order_rev*; gives the parts that fit a frame each.

        At least one part, maybe empty.  What was waiting to be sent is covered by it.
        """
        self._waiting.clear()
        self.sent_rev = max(order_rev, self.sent_rev)
        self._differed = 0
        self._under_way.append(_Sent(self.sent_rev, _told(orders)))
        return [_items(part) for part in parts(orders)] or [()]

    def add(self, order_rev: int, orders: Sequence[EncodedOrder]) -> list[Orders]:
        """Tell what is new up to *order_rev*; gives the frames that may be sent now."""
        *first, last = parts(orders) if orders else [()]
        for part in first:
            self._queue(part[-1].rev, part)
        if last:
            self._queue(max(order_rev, last[-1].rev), last)
        return self.release()

    def release(self) -> list[Orders]:
        """The frames that waited for the node to acknowledge others and may be sent now."""
        frames = []
        while self._waiting and len(self._under_way) < WINDOW:
            sent, frame = self._waiting.popleft()
            self._under_way.append(sent)
            frames.append(frame)
        return frames

    @property
    def unacknowledged(self) -> int:
        return len(self._under_way)

    @property
    def is_full(self) -> bool:
        """Whether frames wait, so that asking for more orders would only pile them up."""
        return bool(self._waiting)

    def _queue(self, order_rev: int, part: tuple[EncodedOrder, ...]) -> None:
        frame = Orders(self.epoch, self.sent_rev, order_rev, _items(part))
        self._waiting.append((_Sent(order_rev, _told(part)), frame))
        self.sent_rev = order_rev

    # --- being told ----------------------------------------------------------------------------

    def taken(self, order_rev: int) -> tuple[tuple[str, Want], ...]:
        """What the node newly acknowledges by *order_rev*: executions, with their newest order.

        Raises NeverSent.  An older revision than before says nothing new.
        """
        if order_rev > self.sent_rev:
            raise NeverSent(order_rev)
        newest: dict[str, Want] = {}
        while self._under_way and self._under_way[0].order_rev <= order_rev:
            for execution, want in self._under_way.popleft().told:
                self._hold(execution, want)
                newest[execution] = want
        self.taken_rev = max(self.taken_rev, order_rev)
        return tuple(newest.items())

    def reported(self, reports: Iterable[Report]) -> None:
        """The node has said these things about what it holds."""
        for report in reports:
            if report.happened in _ENDS:
                self._holds.pop(report.execution, None)
            elif report.execution in self._holds:
                self._holds[report.execution] = _STATES[report.happened]

    def _hold(self, execution: str, want: Want) -> None:
        held = self._holds.get(execution)
        match want:
            case Want.BID if held is None:
                self._holds[execution] = Holding.BID
            case Want.RUN if held in (None, Holding.BID):
                self._holds[execution] = Holding.PREPARING
            case Want.REJECT if held is Holding.BID:
                del self._holds[execution]

    # --- comparing -----------------------------------------------------------------------------

    def holds(self) -> tuple[Held, ...]:
        """What the node should hold by now."""
        return tuple(Held(execution, state) for execution, state in self._holds.items())

    def compare(self, order_rev: int, theirs: str) -> Comparison:
        """Compare the digest of a heartbeat with what the node should hold."""
        if self._under_way or order_rev != self.taken_rev:
            return Comparison.UNKNOWN
        if digest((e, state is not Holding.BID) for e, state in self._holds.items()) == theirs:
            self._differed, self._was_told_again = 0, False
            return Comparison.EQUAL
        self._differed += 1
        if self._differed < PATIENCE:
            return Comparison.UNKNOWN
        self._differed = 0
        again, self._was_told_again = self._was_told_again, True
        return Comparison.STILL_DIFFERS if again else Comparison.DIFFERS


def encoded(orders: Iterable[Order]) -> tuple[list[EncodedOrder], list[Unsendable]]:
    """*orders* as they are sent, each encoded once, and those that no frame has room for."""
    sendable, unsendable = [], []
    for order in orders:
        it = EncodedOrder(order.execution, order.want, order.rev, Raw(codec.encode_order(order)))
        if len(it.text) <= LARGEST_ORDER:
            sendable.append(it)
        else:
            unsendable.append(Unsendable(order.execution, len(it.text), LARGEST_ORDER))
    return sendable, unsendable


def parts(orders: Sequence[EncodedOrder]) -> list[tuple[EncodedOrder, ...]]:
    """*orders* in pieces that fit a frame each: at most BATCH of them, within MAX_FRAME."""
    pieces: list[tuple[EncodedOrder, ...]] = []
    piece: list[EncodedOrder] = []
    room = LARGEST_ORDER
    for order in orders:
        size = len(order.text) + 1
        if piece and (size > room or len(piece) == BATCH):
            pieces.append(tuple(piece))
            piece, room = [], LARGEST_ORDER
        piece.append(order)
        room -= size
    if piece:
        pieces.append(tuple(piece))
    return pieces


def _items(part: Iterable[EncodedOrder]) -> tuple[Order, ...]:
    """What stands for these orders in a message: the encoder copies a Raw as it is."""
    return cast("tuple[Order, ...]", tuple(order.text for order in part))


def _told(orders: Iterable[EncodedOrder]) -> tuple[tuple[str, Want], ...]:
    return tuple((order.execution, order.want) for order in orders)
