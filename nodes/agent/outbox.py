"""Reports on their way to the orchestrator.  Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ..protocol import codec
from ..protocol.messages import BATCH, MAX_FRAME, WINDOW, Report, Reports

#: What a report without long texts takes on the wire, at most, and what a frame adds.
_SHORT = 512
_ENVELOPE = 256


class Outbox:
    """Numbered reports, each kept until an acknowledgement covers it.

    Numbers never repeat within a ledger; the sequence numbers of frames begin anew with every
    epoch, and at most WINDOW frames are under way.
    """

    def __init__(self, saved: Iterable[tuple[int, Report]] = (), numbered: int = 0) -> None:
        """*saved* are reports of a former run, *numbered* is the last number it gave."""
        self._unsent = deque(saved)
        self._under_way: deque[tuple[int, tuple[tuple[int, Report], ...]]] = deque()
        self._number = max([numbered, *(number for number, _ in self._unsent)])
        self._seq = 0
        self._told_rev: int | None = None

    def __len__(self) -> int:
        return len(self._unsent) + sum(len(items) for _, items in self._under_way)

    def add(self, report: Report) -> int:
        """Queue *report* and return its number."""
        self._number += 1
        self._unsent.append((self._number, report))
        return self._number

    def reopen(self) -> None:
        """A new epoch: what was not acknowledged goes out again, under new sequence numbers."""
        for _, items in reversed(self._under_way):
            self._unsent.extendleft(reversed(items))
        self._under_way.clear()
        self._seq, self._told_rev = 0, None

    def tell_again(self) -> None:
        """Acknowledge orders with the next frame, also if their revision was told already."""
        self._told_rev = None

    def frames(self, epoch: int, order_rev: int) -> list[Reports]:
        """The messages that may go out now, the acknowledgement of orders in the first of them."""
        frames = []
        while len(self._under_way) < WINDOW and (self._unsent or self._told_rev != order_rev):
            items = self._take()
            self._seq += 1
            self._told_rev = order_rev
            self._under_way.append((self._seq, items))
            frames.append(Reports(epoch, self._seq, order_rev, tuple(r for _, r in items)))
        return frames

    def acknowledge(self, seq: int) -> list[tuple[int, Report]] | None:
        """The reports that *seq* newly covers; None if no such frame was ever sent."""
        if seq > self._seq:
            return None
        done: list[tuple[int, Report]] = []
        while self._under_way and self._under_way[0][0] <= seq:
            done += self._under_way.popleft()[1]
        return done

    def _take(self) -> tuple[tuple[int, Report], ...]:
        room = MAX_FRAME - _ENVELOPE
        items: list[tuple[int, Report]] = []
        while self._unsent and len(items) < BATCH:
            room -= _size(self._unsent[0][1])
            if room < 0 and items:
                break
            items.append(self._unsent.popleft())
        return tuple(items)


def _size(report: Report) -> int:
    if report.stdout or report.stderr or report.message or report.hint:
        return codec.size(report) + 1
    return _SHORT
