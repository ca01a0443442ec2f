"""Which of the nodes that can run a task is best: named scorers, each with points and a reason.

A node's score is the sum of the scorers that apply to the job.  Every scorer works on many nodes
at once; ``fitness`` takes numbers or arrays, so that placing can rescore one node after each
choice without a second formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from orchestrator.explain.formatting import counted
from orchestrator.spec import Affinity, Spread, selectors

from .feasibility import Demand, remember, satisfying, suitable
from .world import Ints, Nodes, Room

Floats = npt.NDArray[np.float64]

#: The dimensions that fitness looks at: cpu and memory, as columns.
FITTED = 2
#: What a node loses where the job has failed: more than all else can come to, so that it is chosen
#: when no other fits.
BEHIND = 1e6


@dataclass(frozen=True, slots=True)
class Question:
    """Where should executions of one job go?

    ``used`` counts the job's live executions by row of the room, those of one slot together as
    one; ``failures`` its failures; ``avoid`` are rows that may not be chosen now.  ``reserved`` is
    whether the nodes asked about hold what the execution needs for it already.
    """

    demand: Demand
    algorithm: str = "binpack"
    affinities: tuple[Affinity, ...] = ()
    spread: tuple[Spread, ...] = ()
    count: int = 1
    used: Mapping[int, float] = field(default_factory=dict)
    failures: Mapping[int, int] = field(default_factory=dict)
    avoid: frozenset[int] = frozenset()
    reserved: bool = False

    def may_stand_beside(self, row: int, nodes: Sequence[int]) -> bool:
        """Whether *row* may be asked beside *nodes*: where the job failed, no better one is."""
        return not nodes or row not in self.failures or nodes[0] in self.failures

    @property
    def shape(self) -> tuple[object, ...]:
        """Questions of equal shape differ only in what the job already has and where."""
        return (self.demand, self.algorithm, self.affinities)


@dataclass(frozen=True, slots=True)
class Score:
    name: str
    points: float
    reason: str


def scores(room: Room, question: Question, row: int) -> tuple[Score, ...]:
    """Each scorer's verdict on one node; the sum of the points is the node's score."""
    rows = np.array([row])
    return tuple(
        Score(name, float(points(room, question, rows)[0]), reason(room, question, row))
        for name, applies, points, reason in SCORERS
        if applies(question)
    )


def totals(room: Room, question: Question, rows: Ints) -> Floats:
    """The score of each of *rows*."""
    columns = [
        points(room, question, rows) for _, applies, points, _ in SCORERS if applies(question)
    ]
    return np.asarray(sum(columns), dtype=np.float64)


# --- formulas, for one number or many ----------------------------------------------------------


def fitness(free_cpu: Any, free_memory: Any, algorithm: str) -> Any:
    """0 to 1 from the fractions free after placing: full nodes first, or with ``spread`` last.

    Exponential, after Google's "best fit v3": two half full nodes are worse than a full one.
    """
    emptiness = (10.0**free_cpu + 10.0**free_memory - 2.0) / 18.0
    return emptiness if algorithm == "spread" else 1.0 - emptiness


def crowding(collisions: float, count: int) -> float:
    """0 to -1: the share of the job that would stand on one node, if any of it does."""
    return (collisions + min(1, collisions)) / -max(count, 1)


def unreliability(failures: int) -> float:
    """0 where this job has not failed; else far below, the more so the more often it has."""
    return -failures / (failures + 1.0) - BEHIND * (failures > 0)


def evenness(have: float, share: float) -> float:
    """1 where a value of the label has nothing of the job, 0 at its even share, and on below."""
    return 1.0 - have / share


# --- the scorers -------------------------------------------------------------------------------


def _fit(room: Room, question: Question, rows: Ints) -> Floats:
    capacity = room.nodes.capacity[rows, :FITTED]
    left = capacity - _after(room, question, rows)
    free = np.clip(left / np.maximum(capacity, 1), 0.0, 1.0)
    return np.asarray(fitness(free[:, 0], free[:, 1], question.algorithm))


def _why_fit(room: Room, question: Question, row: int) -> str:
    after = _after(room, question, row)
    used = after / np.maximum(room.nodes.capacity[row, :FITTED], 1)
    goal = "empty nodes first" if question.algorithm == "spread" else "full nodes first"
    return f"{used[0]:.0%} of cpu and {used[1]:.0%} of memory used after it, {goal}"


def _after(room: Room, question: Question, rows: Ints | int) -> Ints:
    """What is allocated with the execution there."""
    allocated = room.allocated[rows, :FITTED]
    if question.reserved:
        return allocated
    return allocated + np.array(question.demand.need.astuple()[:FITTED], dtype=np.int64)


def _crowd(_: Room, question: Question, rows: Ints) -> Floats:
    used, count = question.used, question.count
    return np.array([crowding(used[row], count) if row in used else 0 for row in rows.tolist()])


def _why_crowd(_: Room, question: Question, row: int) -> str:
    return f"{question.used.get(row, 0):.3g} of this job's executions are there"


def affinity(nodes: Nodes, question: Question) -> Floats:
    """-1 to 1 for every node: the weight of the preferences it meets."""
    key = ("affinity", question.affinities)
    points: Floats | None = nodes.memo.get(key)
    if points is None:
        points = np.zeros(len(nodes.ids))
        for preference in question.affinities:
            met = np.ones(len(nodes.ids), dtype=np.bool_)
            for requirement in selectors.read(preference.match):
                met &= satisfying(nodes, requirement)
            points += preference.weight * met
        points /= sum(abs(preference.weight) for preference in question.affinities)
        remember(nodes.memo, key, points)
    return points


def _affinity(room: Room, question: Question, rows: Ints) -> Floats:
    return np.asarray(affinity(room.nodes, question)[rows])


def _why_affinity(room: Room, question: Question, row: int) -> str:
    met = [
        preference.match
        for preference in question.affinities
        if all(one.matches(room.nodes.labels[row]) for one in selectors.read(preference.match))
    ]
    return f"meets {len(met)} of {len(question.affinities)} preferences: {', '.join(met) or '-'}"


def _failed(_: Room, question: Question, rows: Ints) -> Floats:
    failures = question.failures
    return np.array([unreliability(failures.get(row, 0)) for row in rows.tolist()])


def _why_failed(_: Room, question: Question, row: int) -> str:
    return f"this job has failed there {counted(question.failures.get(row, 0), 'time')}"


class _Share(NamedTuple):
    """Of one label: its value on each node, what each value has, and may have; its weight of 1."""

    values: list[str | None]
    have: dict[str | None, float]
    share: float
    weight: float


@dataclass(slots=True)
class Shares:
    """How the job's executions are shared out over the values of the labels to spread over.

    A share is even over the values of all nodes that could run it, full or not, but never less
    than one execution.  Nodes without the label have as much as no value can have.
    """

    labels: list[_Share]

    @classmethod
    def of(cls, nodes: Nodes, question: Question) -> Shares:
        """As it is now."""
        total = sum(spread.weight for spread in question.spread)
        labels = []
        for spread in question.spread:
            column, among = _values(nodes, question.demand, spread.over)
            counts: dict[str | None, float] = {None: question.count + 1}
            for row, used in question.used.items():
                counts[column[row]] = counts.get(column[row], 0) + used
            share = max(1.0, question.count / max(among, 1))
            labels.append(_Share(column, counts, share, spread.weight / total))
        return cls(labels)

    def group(self, row: int) -> tuple[str | None, ...]:
        return tuple(label.values[row] for label in self.labels)

    def points(self, group: tuple[str | None, ...]) -> float:
        """The mean of what one more scores for each value, by weight."""
        return sum(
            label.weight * evenness(label.have.get(value, 0), label.share)
            for value, label in zip(group, self.labels, strict=True)
        )

    def add(self, group: tuple[str | None, ...]) -> None:
        for value, label in zip(group, self.labels, strict=True):
            label.have[value] = label.have.get(value, 0) + 1


def _values(nodes: Nodes, wanted: Demand, over: str) -> tuple[list[str | None], int]:
    """The label's value on each node, and how many there are on nodes that could run it."""
    key = ("values", over, wanted.driver, wanted.requirements)
    found: tuple[list[str | None], int] | None = nodes.memo.get(key)
    if found is None:
        column = [labels.get(over) for labels in nodes.labels]
        able = np.flatnonzero(suitable(nodes, wanted) & nodes.ready).tolist()
        found = (column, len({column[row] for row in able} - {None}))
        remember(nodes.memo, key, found)
    return found


def _spread(room: Room, question: Question, rows: Ints) -> Floats:
    shares = Shares.of(room.nodes, question)
    return np.array([shares.points(shares.group(row)) for row in rows.tolist()], dtype=np.float64)


def _why_spread(room: Room, question: Question, row: int) -> str:
    said = []
    for spread, label in zip(question.spread, Shares.of(room.nodes, question).labels, strict=True):
        value = label.values[row]
        has = f"has {label.have.get(value, 0):.3g} of an even share of {label.share:.1f}"
        none = f"no label {spread.over}"
        said.append(none if value is None else f"{spread.over} = {value} {has}")
    return "; ".join(said)


Scorer = tuple[
    str,
    Callable[[Question], bool],
    Callable[[Room, Question, Ints], Floats],
    Callable[[Room, Question, int], str],
]

SCORERS: tuple[Scorer, ...] = (
    ("fit", lambda _: True, _fit, _why_fit),
    ("affinity", lambda it: bool(it.affinities), _affinity, _why_affinity),
    ("anti-affinity", lambda it: bool(it.used), _crowd, _why_crowd),
    ("spread", lambda it: bool(it.spread), _spread, _why_spread),
    ("failures", lambda it: bool(it.failures), _failed, _why_failed),
)
