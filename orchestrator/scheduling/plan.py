"""What should change, as a value.  A plan makes up no ids: the database gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nodes.protocol.resources import Resources
from orchestrator.lifecycle import Desired, JobState, Trigger

from .world import Progress


@dataclass(frozen=True, slots=True)
class Place:
    """A new execution of *slot* on *node*.  Desired pending asks for a bid, running launches."""

    slot: int
    attempt: int
    node: str
    desired: Desired


@dataclass(frozen=True, slots=True)
class Stop:
    """*execution* is not wanted any longer: a running one stops, a bid is rejected."""

    execution: str
    reason: str


@dataclass(frozen=True, slots=True)
class FollowUp:
    """Evaluate the job again at *at*."""

    at: datetime
    trigger: Trigger
    reason: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """Nothing fits now: the smallest requirement that could not be met, and how often.

    ``impossible`` means that no node of this cluster could ever hold it.
    """

    need: Resources
    missing: int
    impossible: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision about one job.

    ``approve`` are executions whose bid is accepted.  ``settle`` are ended executions that
    ``progress`` now accounts for.  ``state`` and ``reason`` are the job's next state and its
    sentence.  ``tally`` counts live executions by observed state and settled ones by outcome.
    ``record`` is the placement record, when something could not be placed; ``summary`` a short
    sentence for the evaluation's history.
    """

    place: tuple[Place, ...] = ()
    need: Resources = field(default_factory=Resources)
    stop: tuple[Stop, ...] = ()
    approve: tuple[str, ...] = ()
    settle: tuple[str, ...] = ()
    progress: Progress = field(default_factory=Progress)
    state: JobState = JobState.PENDING
    reason: str = ""
    tally: Mapping[str, int] = field(default_factory=dict)
    followups: tuple[FollowUp, ...] = ()
    blocked: Blocked | None = None
    record: Mapping[str, Any] | None = None
    summary: str = ""
