"""Choosing nodes: the best first, rescored after each choice, in a room that is not touched.

What can be worked out once for all jobs of the same shape is kept in the room's memo: a heap
of candidates with their scores.  ``Room.take`` says which rows to look at again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from heapq import heapify, heappop, heappush

import numpy as np

from .feasibility import fits, suitable
from .ranking import (
    Floats,
    Question,
    Shares,
    affinity,
    crowding,
    fitness,
    totals,
    unreliability,
)
from .world import Ints, Room

#: Heaps kept, each about 2.5 MB at 5,000 nodes, and shapes remembered at all.
MOST_SHAPES, MOST_SEEN = 16, 1024

Entry = tuple[float, int]
Group = tuple[str | None, ...]


def choose(
    room: Room, question: Question, slots: int, *, now: datetime, ask: int = 1
) -> list[tuple[int, ...]]:
    """For up to *slots* slots, up to *ask* different nodes each, as rows, the best first.

    Each slot gets its first node before any gets a second.  Nodes where the job has failed come
    last, and beside another node never.  The answer is shorter than *slots* when nothing more
    fits; it depends on nothing but the arguments.
    """
    if slots <= 0 or not len(room.nodes.ids):
        return []
    shape = _known_shape(room, question, slots, now)
    if shape is None:
        return _one(room, question, ask)
    candidates = _Groups(room, shape, question) if question.spread else _Best(shape, question)
    chosen: list[list[int]] = []
    while len(chosen) < slots and (row := candidates.take()) is not None:
        chosen.append([row])
    for _ in range(1, ask):
        for nodes in chosen:
            if (row := candidates.take_beside(nodes)) is not None:
                nodes.append(row)
    candidates.close()
    return [tuple(nodes) for nodes in chosen]


def _known_shape(room: Room, question: Question, slots: int, now: datetime) -> _Shape | None:
    """The heap of this shape, as of now; None where looking at every node once is cheaper.

    The first one-slot job of a shape may be the only one, and where one-slot jobs come in many
    shapes, heaps would push each other out.
    """
    shapes: dict[object, _Shape | None] = room.memo.setdefault("shapes", {})
    shape = shapes.get(question.shape)
    if shape is not None:
        shape.refresh(room, now)
        return shape
    built = sum(it is not None for it in shapes.values())
    if slots == 1 and not question.spread:
        first = question.shape not in shapes
        if first and len(shapes) < MOST_SEEN:
            shapes[question.shape] = None
        if first or built >= MOST_SHAPES:
            return None
    elif built >= MOST_SHAPES:
        shapes.pop(next(name for name, it in shapes.items() if it is not None))
    shapes[question.shape] = shape = _Shape(room, question, now)
    return shape


def how_many(room: Room, question: Question) -> Ints:
    """How many executions each node can still take; 0 for those that may not be chosen."""
    need = np.array(question.demand.need.astuple(), dtype=np.int64)
    asked = need > 0
    free = room.nodes.capacity[:, asked] - room.allocated[:, asked]
    times = (free // need[asked]).min(axis=1) if asked.any() else np.full(len(free), 1 << 30)
    times = np.where(suitable(room.nodes, question.demand) & room.nodes.ready, times, 0)
    return np.maximum(times, 0).astype(np.int64)


def _one(room: Room, question: Question, ask: int) -> list[tuple[int, ...]]:
    able = fits(room, question.demand)
    if question.avoid:
        able[list(question.avoid)] = False
    rows = np.flatnonzero(able)
    if not len(rows):
        return []
    points = totals(room, question, rows)
    if ask == 1:
        return [(int(rows[points.argmax()]),)]
    best = rows[np.argsort(-points, kind="stable")[:ask]].tolist()
    return [tuple(row for row in best if question.may_stand_beside(row, best))]


class _Shape:
    """Candidates of one shape, in a heap by what they score for a job with nothing there yet.

    Entries grow stale when a node is rescored; a stale one is known by its score.
    """

    def __init__(self, room: Room, question: Question, now: datetime) -> None:
        self.need = question.demand.need.astuple()
        self.algorithm = question.algorithm
        self.candidate = (suitable(room.nodes, question.demand) & room.nodes.ready).tolist()
        self.asked = [(d, amount) for d, amount in enumerate(self.need) if amount > 0]
        self.capacity: list[list[int]] = room.nodes.capacity.tolist()
        self.preference: list[float] = (
            affinity(room.nodes, question).tolist() if question.affinities else []
        )
        self._read(room, question)
        self.now = now

    def _read(self, room: Room, question: Question) -> None:
        self.question = Question(question.demand, question.algorithm, question.affinities)
        self.seen = room.allocated.copy()
        self.allocated: list[list[int]] = self.seen.tolist()
        self.room: list[int] = how_many(room, self.question).tolist()
        every = np.arange(len(room.nodes.ids))
        points: Floats = totals(room, Question(question.demand, question.algorithm), every)
        if self.preference:
            points = points + affinity(room.nodes, question)
        self.score: list[float] = points.tolist()
        self.heap: list[Entry] = [(-self.score[i], i) for i, n in enumerate(self.room) if n > 0]
        heapify(self.heap)
        self.position = len(room.taken)

    def refresh(self, room: Room, now: datetime) -> None:
        """Take in what has changed: within one instant only what ``take`` has."""
        if now != self.now:
            self.now = now
            rows = np.flatnonzero((room.allocated != self.seen).any(axis=1)).tolist()
        else:
            rows = list(dict.fromkeys(room.taken[self.position :]))
        self.position = len(room.taken)
        if len(rows) > len(self.room) // 4 or len(self.heap) > 4 * len(self.room) + 64:
            self._read(room, self.question)
            return
        for row in rows:
            self.seen[row] = room.allocated[row]
            self.allocated[row] = amounts = room.allocated[row].tolist()
            if self.candidate[row]:
                capacity = self.capacity[row]
                times = min((capacity[d] - amounts[d]) // n for d, n in self.asked)
                self.room[row] = max(times, 0)
                self.score[row] = self.scored(row, 0)
                if times > 0:
                    heappush(self.heap, (-self.score[row], row))

    def scored(self, row: int, extra: int) -> float:
        """The score of one more execution there, after *extra* more than allocated."""
        capacity, used, need, times = self.capacity[row], self.allocated[row], self.need, extra + 1
        cpu = (capacity[0] - used[0] - need[0] * times) / (capacity[0] or 1)
        memory = (capacity[1] - used[1] - need[1] * times) / (capacity[1] or 1)
        points: float = fitness(max(cpu, 0.0), max(memory, 0.0), self.algorithm)
        return points + self.preference[row] if self.preference else points

    def live(self, entry: Entry) -> bool:
        return self.room[entry[1]] > 0 and self.score[entry[1]] == -entry[0]


class _Best:
    """What one job chooses from: the heap of its shape, where what it has chosen counts for it.

    Nodes whose score for this job differs from the shape's stand in a heap of the job's own.
    """

    def __init__(self, shape: _Shape, question: Question) -> None:
        self.shape, self.question = shape, question
        self.extra: dict[int, int] = {}
        own = {row for row in (*question.used, *question.failures) if shape.room[row] > 0}
        self.mine = [self.entry(row) for row in own - question.avoid]
        heapify(self.mine)
        self.skip = own | question.avoid
        self.aside = set[Entry]()

    def take(self) -> int | None:
        """The best node, counting one more execution there."""
        row = self.pop()
        if row is not None:
            self.count(row)
        return row

    def take_beside(self, nodes: Sequence[int]) -> int | None:
        """The best node that is none of *nodes* and may be asked beside them, counted as well."""
        passed = []
        while (row := self.pop()) is not None and row in nodes:
            passed.append(row)
        if row is not None and not self.question.may_stand_beside(row, nodes):
            passed.append(row)
            row = None
        if row is not None:
            self.count(row)
        for it in passed:
            self.put_back(it)
        return row

    def entry(self, row: int) -> Entry:
        """The node with its score for one more execution of this job."""
        question, more = self.question, self.extra.get(row, 0)
        points = self.shape.scored(row, more)
        if used := question.used.get(row, 0) + more:
            points += crowding(used, question.count)
        if row in question.failures:
            points += unreliability(question.failures[row])
        return (-points, row)

    def count(self, row: int) -> None:
        self.extra[row] = more = self.extra.get(row, 0) + 1
        if more < self.shape.room[row]:
            self.put_back(row)

    def put_back(self, row: int) -> None:
        """The node may be chosen again, with the score it has now."""
        heappush(self.mine, self.entry(row))

    def pop(self) -> int | None:
        """Take the best node out."""
        shape, heap, mine = self.shape, self.shape.heap, self.mine
        while heap and (heap[0][1] in self.skip or not shape.live(heap[0])):
            entry = heappop(heap)
            if shape.live(entry):
                self.aside.add(entry)
        if mine and (not heap or mine[0] < heap[0]):
            return heappop(mine)[1]
        if not heap:
            return None
        row = heap[0][1]
        self.skip.add(row)
        return row

    def close(self) -> None:
        """Leave the shape's heap as it was."""
        for entry in self.aside:
            heappush(self.shape.heap, entry)


class _Groups(_Best):
    """As that, for a job that is to be spread over the values of labels.

    Candidates are in one heap for each combination of values, beside a heap of the combinations.
    The points of a combination only fall while its values gain executions, so one whose stored
    total has become too high is put back with the right one when it comes up.
    """

    def __init__(self, room: Room, shape: _Shape, question: Question) -> None:
        self.shape, self.question = shape, question
        self.extra: dict[int, int] = {}
        self.shares = Shares.of(room.nodes, question)
        self.group: dict[int, Group] = {}
        self.members: dict[Group, list[Entry]] = {}
        for row, times in enumerate(shape.room):
            if times > 0 and row not in question.avoid:
                self.group[row] = group = self.shares.group(row)
                self.members.setdefault(group, []).append(self.entry(row))
        for entries in self.members.values():
            heapify(entries)
        self.best: list[tuple[float, int, Group]] = []
        #: The order of the combinations, the total that each was last entered with, and those
        #: to be entered anew.
        self.order = {group: i for i, group in enumerate(self.members)}
        self.entered: dict[Group, float] = {}
        self.changed = set(self.members)

    def count(self, row: int) -> None:
        self.shares.add(self.group[row])
        super().count(row)

    def put_back(self, row: int) -> None:
        group = self.group[row]
        heappush(self.members[group], self.entry(row))
        self.changed.add(group)

    def pop(self) -> int | None:
        while self.changed:
            self._enter(self.changed.pop())
        while self.best:
            total, _, group = heappop(self.best)
            if self.entered.get(group) != total:
                continue
            if self._total(group) > total:
                self._enter(group)
                continue
            self.changed.add(group)
            return heappop(self.members[group])[1]
        return None

    def close(self) -> None:
        """The shape's heap was not touched."""

    def _enter(self, group: Group) -> None:
        if not self.members[group]:
            self.entered.pop(group, None)
            return
        self.entered[group] = self._total(group)
        heappush(self.best, (self.entered[group], self.order[group], group))

    def _total(self, group: Group) -> float:
        return self.members[group][0][0] - self.shares.points(group)
