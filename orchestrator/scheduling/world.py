"""What a decision may look at, frozen at one instant."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from nodes.protocol.resources import Resources
from orchestrator.explain.reasons import Failure
from orchestrator.lifecycle import OBSERVED, Desired, JobState, Observed
from orchestrator.spec import JobBody

from .bad_nodes import BadNodes
from .waits import Waits

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: Observed states that are never left; asked thousands of times in one decision.
TERMINAL = OBSERVED.terminal


@dataclass(frozen=True, slots=True)
class ExecutionView:
    """An execution that is live, or has ended and is not settled yet.

    ``reserved`` is whether its resources are still counted on its node: a lost execution gives
    them back only when its node, returned, says that it is gone.  ``cause`` is why somebody ended
    it, a ``StopCause``; empty when it ended by itself.
    """

    id: str
    node: str
    slot: int
    attempt: int
    version: int
    generation: str
    round: int
    desired: Desired
    observed: Observed
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    code: str = ""
    message: str = ""
    retryable: bool = True
    reserved: bool = True
    cause: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """Executions of a large job that run as they were told, in columns: one after the other.

    All are of the job's generation and round, no two of the same slot.  ``nodes`` are rows of the
    world's nodes, -1 for a node that is gone; ``started`` is in microseconds since 2000.  ``view``
    gives the one in a row, where something is to be said of it, see ``running``.
    """

    slots: Ints
    nodes: Ints
    versions: Ints
    started: Ints
    view: Callable[[int], ExecutionView]

    def __len__(self) -> int:
        return len(self.slots)

    def only(self, which: Bools) -> Running:
        """Those of them that *which* marks."""
        rows = np.flatnonzero(which)
        columns = (self.slots[rows], self.nodes[rows], self.versions[rows], self.started[rows])
        return Running(*columns, lambda row: self.view(int(rows[row])))


def _no_view(row: int) -> ExecutionView:
    raise IndexError(row)


_NONE = np.zeros(0, dtype=np.int64)
#: As of nearly all jobs.
NONE_IN_COLUMNS = Running(_NONE, _NONE, _NONE, _NONE, _no_view)


@dataclass(frozen=True, slots=True)
class Progress:
    """What decisions need to know of settled executions; its size follows the job, not history.

    It is about the ``round`` that began at ``since``; of another one it says nothing, see
    ``carried``.  ``completed`` has a bit for each slot, see ``slot_set``.  ``attempts`` is the
    number of a slot's last attempt that has failed or was interrupted, ``failed_attempts`` and
    ``interruptions`` how many have since somebody wanted the job anew; ``retry_at`` is when such a
    slot may be placed again.
    ``bad_nodes`` are those where it has failed lately, or that would not take it.
    ``outcomes`` counts settled executions by observed state.  ``failed`` is how the slot failed
    that is not tried again, if one did; ``last_failure`` how that did which waits longest to be.
    ``waits`` are the slots that have found no place, by when that was, the earliest first.
    ``turn`` is the node that was asked last, where each is in its turn because so many refused.
    """

    round: int | None = None
    since: datetime | None = None
    completed: bytes = b""
    attempts: Mapping[int, int] = field(default_factory=dict)
    failed_attempts: Mapping[int, int] = field(default_factory=dict)
    retry_at: Mapping[int, datetime] = field(default_factory=dict)
    interruptions: Mapping[int, int] = field(default_factory=dict)
    bad_nodes: BadNodes = field(default_factory=dict)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    failed: Failure | None = None
    last_failure: Failure | None = None
    waits: Waits = ()
    turn: str = ""

    def carried(self, round_: int, since: datetime) -> Progress:
        """What of it counts in the round *round_*, when the job is wanted since *since*.

        In another round nothing does.  When the job had ended, and somebody wants it anew, what
        has completed stays so, and what was given up is tried again.
        """
        if self.round is None:  # Nothing was achieved yet.
            return replace(self, round=round_, since=since)
        if self.round != round_:
            return Progress(round=round_, since=since)
        if self.since == since:
            return self
        return replace(
            self,
            since=since,
            failed_attempts={},
            retry_at={},
            interruptions={},
            failed=None,
            last_failure=None,
            waits=(),
        )

    @property
    def waiting_since(self) -> datetime | None:
        """When a slot first found no place, until all have one."""
        return self.waits[0].since if self.waits else None

    @property
    def slots(self) -> Mapping[int, tuple[int, int, datetime | None, int]]:
        """Of each slot that is not as all begin: the columns of its row, in their order."""
        return {
            slot: (
                self.attempts.get(slot, 0),
                self.failed_attempts.get(slot, 0),
                self.retry_at.get(slot),
                self.interruptions.get(slot, 0),
            )
            for slot in {
                *self.attempts,
                *self.failed_attempts,
                *self.retry_at,
                *self.interruptions,
            }
        }


@dataclass(frozen=True, slots=True)
class JobView:
    """The job as it is wanted now.

    Executions of another ``generation`` run something else, those of an earlier ``round`` are of
    no use any longer.  ``submitted_at`` is since when it is wanted this time, ``intent_rev`` the
    number of what is wanted: a plan is good for that alone.
    """

    id: str
    name: str
    spec: JobBody
    count: int
    version: int
    generation: str
    round: int
    state: JobState
    submitted_at: datetime
    intent_rev: int = 1
    stop_requested: bool = False
    stop_reason: str = ""
    stopped_by: str = ""
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """What is so of all nodes, in columns: row *i* of every array is node ``ids[i]``.

    ``capacity`` has one column per dimension, ``offered`` what nodes say they have, where that
    may be more than was approved.  ``ready`` nodes may get new work: approved, connected,
    eligible, not draining, not quarantined; ``unready`` says why not.  ``labels`` holds what
    selectors can ask for, see ``nodes.labels``.  ``memo`` is what has been worked out and may be
    forgotten.  Nothing else ever changes, so threads may share it: other facts are other Nodes.
    """

    ids: Sequence[str]
    names: Sequence[str]
    labels: Sequence[Mapping[str, str]]
    capacity: Ints
    ready: Bools
    unready: Sequence[str]
    offered: Ints
    index: Mapping[str, int] = field(init=False)
    memo: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {node: i for i, node in enumerate(self.ids)})


@dataclass(slots=True)
class Room:
    """What is taken of *nodes*, for the decisions of one lease group, one after the other.

    ``allocated`` has a row for each node.  Deciding changes nothing of it; ``take`` counts what
    was decided, so that the next decision sees what remains.  ``taken`` are the rows that it has
    changed, ``revision`` is how new the amounts are, and ``memo`` what placing keeps from one
    decision to the next.
    """

    nodes: Nodes
    allocated: Ints
    revision: str = ""
    taken: list[int] = field(default_factory=list)
    memo: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def free(self) -> Ints:
        return self.nodes.capacity - self.allocated

    def take(self, node: str, need: Resources) -> None:
        """Count *need* as allocated on *node*."""
        row = self.nodes.index[node]
        self.allocated[row] += np.array(need.astuple(), dtype=np.int64)
        self.taken.append(row)

    def renew(self, allocated: Ints, revision: str) -> None:
        """Begin with these amounts, whatever was taken."""
        np.copyto(self.allocated, allocated)
        self.taken.clear()
        self.revision = revision


@dataclass(frozen=True, slots=True)
class World:
    """Everything one decision may look at.

    ``executions`` are those of ``job`` that are not settled, in the order of their ids, but those
    that are in ``running``; ``specs`` has the version of each.  ``algorithm`` is ``binpack`` or
    ``spread``.
    """

    job: JobView
    executions: tuple[ExecutionView, ...]
    room: Room
    now: datetime
    algorithm: str = "binpack"
    specs: Mapping[int, JobBody] = field(default_factory=dict)
    running: Running = NONE_IN_COLUMNS

    @property
    def nodes(self) -> Nodes:
        return self.room.nodes
