"""Which of the nodes that can run a task is best: named scorers, each with points and a reason.

A node's score is the mean of the scorers that apply to the job, so their sum ranks alike.  Every
scorer works on many nodes at once; ``fitness``, ``crowding`` and ``unreliability`` take numbers
or arrays, so that placing can rescore one node after each choice without a second formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.explain.formatting import counted
from orchestrator.spec import Affinity, Spread, selectors

from .feasibility import Demand, remember, satisfying
from .world import Cluster, Ints

Floats = npt.NDArray[np.float64]

#: The dimensions that fitness looks at: cpu and memory, as columns.
FITTED = 2


@dataclass(frozen=True, slots=True)
class Question:
    """Where should executions of one job go?

    ``used`` counts the job's live executions by row of the cluster, ``failures`` its failures;
    ``avoid`` are rows that may not be chosen now.
    """

    demand: Demand
    algorithm: str = "binpack"
    affinities: tuple[Affinity, ...] = ()
    spread: tuple[Spread, ...] = ()
    count: int = 1
    used: Mapping[int, int] = field(default_factory=dict)
    failures: Mapping[int, int] = field(default_factory=dict)
    avoid: frozenset[int] = frozenset()

    @property
    def shape(self) -> tuple[object, ...]:
        """Questions of equal shape differ only in what the job already has and where."""
        return (self.demand, self.algorithm, self.affinities)


@dataclass(frozen=True, slots=True)
class Score:
    name: str
    points: float
    reason: str


def scores(cluster: Cluster, question: Question, row: int) -> tuple[Score, ...]:
    """Each scorer's verdict on one node; the mean of the points is the node's score."""
    rows = np.array([row])
    return tuple(
        Score(name, float(points(cluster, question, rows)[0]), reason(cluster, question, row))
        for name, applies, points, reason in SCORERS
        if applies(question)
    )


def totals(cluster: Cluster, question: Question, rows: Ints) -> Floats:
    """The score of each of *rows*, as a mean."""
    columns = [
        points(cluster, question, rows) for _, applies, points, _ in SCORERS if applies(question)
    ]
    return np.asarray(sum(columns) / len(columns), dtype=np.float64)


# --- formulas, for one number or many ----------------------------------------------------------


def fitness(free_cpu: Any, free_memory: Any, algorithm: str) -> Any:
    """0 to 1 from the fractions free after placing: full nodes first, or with ``spread`` last.

    Exponential, after Google's "best fit v3": two half full nodes are worse than a full one.
    """
    emptiness = (10.0**free_cpu + 10.0**free_memory - 2.0) / 18.0
    return emptiness if algorithm == "spread" else 1.0 - emptiness


def crowding(collisions: Any, count: int) -> Any:
    """0 to -1: the share of the job that would stand on one node, if any of it does."""
    return (collisions > 0) * (collisions + 1.0) / -max(count, 1)


def unreliability(failures: Any) -> Any:
    """0 to -1, the more this job has failed there."""
    return -failures / (failures + 1.0)


def evenness(have: float, ideal: float) -> float:
    """1 to -1: how far one more keeps a value of the label below its even share."""
    return max(-1.0, min(1.0, (ideal - have - 1.0) / ideal)) if ideal > 0 else -1.0


# --- the scorers -------------------------------------------------------------------------------


def _fit(cluster: Cluster, question: Question, rows: Ints) -> Floats:
    need = np.array(question.demand.need.astuple()[:FITTED], dtype=np.int64)
    capacity = cluster.capacity[rows, :FITTED]
    left = capacity - cluster.allocated[rows, :FITTED] - need
    free = np.clip(left / np.maximum(capacity, 1), 0.0, 1.0)
    return np.asarray(fitness(free[:, 0], free[:, 1], question.algorithm))


def _why_fit(cluster: Cluster, question: Question, row: int) -> str:
    after = cluster.allocated[row] + np.array(question.demand.need.astuple(), dtype=np.int64)
    used = after[:FITTED] / np.maximum(cluster.capacity[row, :FITTED], 1)
    goal = "empty nodes first" if question.algorithm == "spread" else "full nodes first"
    return f"{used[0]:.0%} of cpu and {used[1]:.0%} of memory used after it, {goal}"


def _crowd(_: Cluster, question: Question, rows: Ints) -> Floats:
    used = np.array([question.used.get(int(row), 0) for row in rows], dtype=np.float64)
    return np.asarray(crowding(used, question.count))


def _why_crowd(_: Cluster, question: Question, row: int) -> str:
    return f"{question.used.get(row, 0)} of this job's executions are there"


def affinity(cluster: Cluster, question: Question) -> Floats:
    """-1 to 1 for every node of the cluster: the weight of the preferences it meets."""
    key = ("affinity", question.affinities)
    points: Floats | None = cluster.memo.get(key)
    if points is None:
        points = np.zeros(len(cluster.ids))
        for preference in question.affinities:
            met = np.ones(len(cluster.ids), dtype=np.bool_)
            for requirement in selectors.read(preference.match):
                met &= satisfying(cluster, requirement)
            points += preference.weight * met
        points /= sum(abs(preference.weight) for preference in question.affinities)
        remember(cluster, key, points)
    return points


def _affinity(cluster: Cluster, question: Question, rows: Ints) -> Floats:
    return np.asarray(affinity(cluster, question)[rows])


def _why_affinity(cluster: Cluster, question: Question, row: int) -> str:
    met = [
        preference.match
        for preference in question.affinities
        if all(one.matches(cluster.labels[row]) for one in selectors.read(preference.match))
    ]
    return f"meets {len(met)} of {len(question.affinities)} preferences: {', '.join(met) or '-'}"


def _failed(_: Cluster, question: Question, rows: Ints) -> Floats:
    failures = np.array([question.failures.get(int(row), 0) for row in rows], dtype=np.float64)
    return np.asarray(unreliability(failures))


def _why_failed(_: Cluster, question: Question, row: int) -> str:
    return f"this job has failed there {counted(question.failures.get(row, 0), 'time')}"


@dataclass(slots=True)
class Shares:
    """How the job's executions are shared out over the values of the labels to spread over."""

    values: tuple[list[str | None], ...]
    have: tuple[dict[str | None, int], ...]
    ideal: tuple[float, ...]
    weight: tuple[float, ...]

    @classmethod
    def of(cls, cluster: Cluster, question: Question, rows: Ints) -> Shares:
        """As it is now, for nodes in *rows* to be chosen from."""
        columns, have, ideal = [], [], []
        for spread in question.spread:
            column = [labels.get(spread.over) for labels in cluster.labels]
            counts: dict[str | None, int] = {}
            for row, used in question.used.items():
                counts[column[row]] = counts.get(column[row], 0) + used
            distinct = {column[row] for row in rows} - {None}
            columns.append(column)
            have.append(counts)
            ideal.append(question.count / max(len(distinct), 1))
        total = sum(spread.weight for spread in question.spread)
        weight = tuple(spread.weight / total for spread in question.spread)
        return cls(tuple(columns), tuple(have), tuple(ideal), weight)

    def group(self, row: int) -> tuple[str | None, ...]:
        return tuple(column[row] for column in self.values)

    def points(self, group: tuple[str | None, ...]) -> float:
        """1 to -1; a node without the label counts as one that has too many."""
        return sum(
            weight * (-1.0 if value is None else evenness(have.get(value, 0), ideal))
            for value, have, ideal, weight in zip(
                group, self.have, self.ideal, self.weight, strict=True
            )
        )

    def add(self, group: tuple[str | None, ...]) -> None:
        for value, have in zip(group, self.have, strict=True):
            have[value] = have.get(value, 0) + 1


def _spread(cluster: Cluster, question: Question, rows: Ints) -> Floats:
    everywhere = np.flatnonzero(cluster.ready)
    shares = Shares.of(cluster, question, everywhere)
    return np.array([shares.points(shares.group(int(row))) for row in rows], dtype=np.float64)


def _why_spread(cluster: Cluster, question: Question, row: int) -> str:
    shares = Shares.of(cluster, question, np.flatnonzero(cluster.ready))
    parts = zip(question.spread, shares.group(row), shares.have, shares.ideal, strict=True)
    return "; ".join(
        f"{spread.over} = {value} has {have.get(value, 0)} of an even share of {ideal:.1f}"
        for spread, value, have, ideal in parts
    )


Scorer = tuple[
    str,
    Callable[[Question], bool],
    Callable[[Cluster, Question, Ints], Floats],
    Callable[[Cluster, Question, int], str],
]

SCORERS: tuple[Scorer, ...] = (
    ("fit", lambda _: True, _fit, _why_fit),
    ("anti-affinity", lambda it: it.count > 1 or bool(it.used), _crowd, _why_crowd),
    ("affinity", lambda it: bool(it.affinities), _affinity, _why_affinity),
    ("spread", lambda it: bool(it.spread), _spread, _why_spread),
    ("failures", lambda it: bool(it.failures), _failed, _why_failed),
)
