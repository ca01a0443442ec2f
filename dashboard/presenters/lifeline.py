"""The life of one execution in two lanes, laid out for an SVG.

The axis is compressed: every change gets room for its word, and longer intervals more of it, by
the logarithm of what they took.  So a conversation of milliseconds and an hour of work are both
readable, and every column says how long it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from orchestrator.explain.formatting import duration, person

from . import states

if TYPE_CHECKING:
    from orchestrator.models import Execution, ExecutionHistory

T = TypeVar("T")

LEFT = 92.0
WIDTH = 1120.0
LEAST = 86.0
TAIL = 96.0
RIGHT = 14.0

LETTERS = {"endpoint": "E", "state-updater": "S", "compute-forwarder": "F"}
NAMES = {
    "E": "Endpoint",
    "N": "Endpoint, on a node's report",
    "S": "StateUpdater, from a plan",
    "F": "ComputeForwarder",
}

#: What may be observed while the lane above wants this, without anything being under way.
_AGREES = {
    "pending": {"new", "ask_for_bid", "ask_for_bid_accepted"},
    "running": {"running", "publishing"},
    "stopped": {
        *("completed", "failed", "cancelled", "lost"),
        *("ask_for_bid_rejected", "bid_rejected"),
    },
}


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one lane."""

    x: float
    width: float
    look: str
    word: str
    title: str

    @property
    def middle(self) -> float:
        return round(self.x + self.width / 2, 1)

    @property
    def fits(self) -> bool:
        return self.width >= 6.1 * len(self.word) + 4


@dataclass(frozen=True, slots=True)
class Mark:
    """Who wrote something at this instant."""

    x: float
    letter: str
    lane: str
    title: str


@dataclass(frozen=True, slots=True)
class Column:
    """An interval between two changes, and how long it was."""

    x: float
    middle: float
    text: str
    clock: str


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch in which what is wanted and what is seen differ."""

    x: float
    width: float
    middle: float
    text: str
    late: bool


@dataclass(frozen=True, slots=True)
class Lifeline:
    width: float
    left: float
    end: float
    desired: tuple[Span, ...]
    observed: tuple[Span, ...]
    marks: tuple[Mark, ...]
    columns: tuple[Column, ...]
    gaps: tuple[Gap, ...]
    now: float | None
    label: str
    legend: tuple[tuple[str, str], ...]


ONE_MOMENT = 0.0005

LATE = 5.0
"""Seconds after which a difference of the lanes is worth a look."""


def lifeline(execution: Execution, rows: Sequence[ExecutionHistory], now: datetime) -> Lifeline:
    """The two lanes of *execution*; the last stretch is open while it is live."""
    steps = _together(rows)
    instants = sorted({step.at for step in steps})
    ended = execution.ended_at is not None
    finish = instants[-1] if ended and instants else now
    xs, end = _axis(instants, finish, ended=ended)
    changes = {
        lane: [step for step in steps if step.lane == lane] for lane in ("desired", "observed")
    }
    desired = _spans(changes["desired"], xs, end, finish, ended=ended)
    observed = _spans(changes["observed"], xs, end, finish, ended=ended)
    marks = tuple(_marks(steps, xs))
    used = {mark.letter for mark in marks}
    return Lifeline(
        width=max(WIDTH, end + RIGHT),
        left=LEFT,
        end=end,
        desired=desired,
        observed=observed,
        marks=marks,
        columns=tuple(_columns(instants, xs, end, finish, ended=ended)),
        gaps=tuple(_gaps(steps, xs, end, finish)),
        now=None if ended else end,
        label=_label(changes["observed"], finish),
        legend=tuple((letter, name) for letter, name in NAMES.items() if letter in used),
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """A row of the history, at the moment that it shares with others."""

    at: datetime
    lane: str
    after: str
    writer: str
    actor: str
    reason: str


def _together(rows: Sequence[ExecutionHistory]) -> list[_Step]:
    """The rows in order; what one transaction wrote in both lanes gets one moment."""
    found: list[_Step] = []
    for row in sorted(rows, key=lambda row: (row.at, row.rev)):
        at, lanes = row.at, set()
        if found:
            lanes = {step.lane for step in found if step.at == found[-1].at}
            near = (row.at - found[-1].at).total_seconds() < ONE_MOMENT
            at = found[-1].at if near and row.lane not in lanes else row.at
        found.append(_Step(at, row.lane, row.after, row.writer, row.actor, row.why))
    return found


def letter(row: ExecutionHistory | _Step) -> str:
    """Who wrote *row*: E, S, F, or N where the Endpoint wrote what a node had reported."""
    if row.writer == "endpoint" and row.actor.startswith("node"):
        return "N"
    return LETTERS.get(row.writer, "?")


def _axis(
    instants: Sequence[datetime], finish: datetime, *, ended: bool
) -> tuple[dict[datetime, float], float]:
    """Where each instant lies, and where the picture ends."""
    stops = [*instants] if ended else [*instants, finish]
    gaps = [(b - a).total_seconds() for a, b in pairwise(stops)]
    weights = [math.log1p(max(gap, 0.0) * 1000) for gap in gaps]
    room = WIDTH - LEFT - (TAIL if ended else RIGHT) - LEAST * len(gaps)
    total = sum(weights) or 1.0
    xs, x = {}, LEFT
    for instant, weight in zip(stops, [*weights, 0.0], strict=False):
        xs[instant] = round(x, 1)
        x += LEAST + max(room, 0.0) * weight / total
    end = xs[stops[-1]] + (TAIL if ended else 0.0) if stops else LEFT
    return xs, round(end, 1)


def _followed(found: Sequence[T]) -> list[tuple[T, T | None]]:
    """Each with the one after it, the last with None."""
    return list(zip(found, [*found[1:], None], strict=False))


def _spans(
    rows: Sequence[_Step],
    xs: dict[datetime, float],
    end: float,
    finish: datetime,
    *,
    ended: bool,
) -> tuple[Span, ...]:
    found = []
    for row, after in _followed(rows):
        shown = (states.desired if row.lane == "desired" else states.observed)(row.after)
        x = xs[row.at]
        until = end if after is None else xs[after.at]
        last = after is None and ended
        took = ((finish if after is None else after.at) - row.at).total_seconds()
        title = shown.word if last else f"{shown.word} for {duration(took)}"
        width = round(max(until - x - 2, 2), 1)
        found.append(Span(x, width, shown.look, shown.word, title + _meaning(shown.mean)))
    return tuple(found)


def _meaning(mean: str) -> str:
    return f": {mean}" if mean else ""


def _marks(rows: Sequence[_Step], xs: dict[datetime, float]) -> list[Mark]:
    found: dict[tuple[float, str], Mark] = {}
    for row in rows:
        sign = letter(row)
        who = f" ({person(row.actor)})" if row.actor else ""
        why = f": {row.reason}" if row.reason else ""
        title = f"{NAMES.get(sign, row.writer)}{who} wrote {row.lane} {row.after}{why}"
        place = (xs[row.at], row.lane)
        if place in found:
            title = f"{found[place].title}\n{title}"
        found[place] = Mark(xs[row.at], sign, row.lane, title)
    return list(found.values())


def _columns(
    instants: Sequence[datetime],
    xs: dict[datetime, float],
    end: float,
    finish: datetime,
    *,
    ended: bool,
) -> list[Column]:
    found = []
    for at, after in _followed(instants):
        x, until = xs[at], end if after is None else xs[after]
        took = "" if after is None and ended else duration(((after or finish) - at).total_seconds())
        clock = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}"
        found.append(Column(x, round((x + until) / 2, 1), took, clock))
    return found


def _gaps(
    rows: Sequence[_Step], xs: dict[datetime, float], end: float, finish: datetime
) -> list[Gap]:
    lanes = {"desired": "", "observed": ""}
    found, begun = [], None
    instants = sorted({row.at for row in rows})
    for at in instants:
        for row in rows:
            if row.at == at:
                lanes[row.lane] = row.after
        differ = lanes["observed"] not in _AGREES.get(lanes["desired"], set())
        if differ and begun is None:
            begun = at
        elif not differ and begun is not None:
            found.append(_gap(begun, at, xs[begun], xs[at]))
            begun = None
    if begun is not None:
        found.append(_gap(begun, finish, xs[begun], end))
    return found


def _gap(begun: datetime, until: datetime, x: float, end: float) -> Gap:
    took = (until - begun).total_seconds()
    width = round(end - x - 2, 1)
    return Gap(x, width, round(x + width / 2, 1), f"differed {duration(took)}", took > LATE)


def _label(rows: Sequence[_Step], finish: datetime) -> str:
    said = []
    for row, after in _followed(rows):
        took = ((finish if after is None else after.at) - row.at).total_seconds()
        word = states.observed(row.after).word
        said.append(word if after is None else f"{word} for {duration(took)}")
    return "Observed: " + ", then ".join(said)
