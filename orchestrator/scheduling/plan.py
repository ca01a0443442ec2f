"""What should change, as a value.  A plan makes up no ids: the database gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from nodes.protocol.resources import Resources
from orchestrator.explain.reasons import Impossible, Reason, Shortage
from orchestrator.lifecycle import Desired, JobState, StopCause, Trigger

from .world import Progress


@dataclass(frozen=True, slots=True)
class Place:
    """A new execution of *slot* on *node*, made from *version*, which needs *need* there.

    Desired pending asks for a bid, running launches.
    """

    slot: int
    attempt: int
    node: str
    desired: Desired
    version: int
    need: Resources


class Why(NamedTuple):
    """Why an execution is stopped; ``detail`` is what only a sentence can say."""

    cause: StopCause
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """*execution* is not wanted any longer: a running one stops, a bid is rejected.

    ``cause`` and ``detail`` are those of `Why`.
    """

    execution: str
    cause: StopCause
    detail: str = ""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """Evaluate the job again at *at*."""

    at: datetime
    trigger: Trigger
    reason: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """Nothing fits now: the smallest requirement that could not be met, how often, since when."""

    need: Resources
    missing: int
    why: Shortage
    since: datetime | None = None

    @property
    def impossible(self) -> bool:
        """Whether no node of this cluster could ever hold it."""
        return isinstance(self.why, Impossible)


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision about one job.

    ``approve`` are executions whose bid is accepted.  ``settle`` are ended executions that
    ``progress`` now accounts for.  ``state`` is the job's next state, ``reasons`` why
    it is in it, None where they stay as they are.  ``tally`` counts live executions by observed
    state and settled ones by outcome.
    ``record`` is the placement record, when something could not be placed; ``summary`` a short
    sentence for the evaluation's history.
    """

    place: tuple[Place, ...] = ()
    stop: tuple[Stop, ...] = ()
    approve: tuple[str, ...] = ()
    settle: tuple[str, ...] = ()
    progress: Progress = field(default_factory=Progress)
    state: JobState = JobState.PENDING
    reasons: tuple[Reason, ...] | None = ()
    tally: Mapping[str, int] = field(default_factory=dict)
    followups: tuple[FollowUp, ...] = ()
    blocked: Blocked | None = None
    record: Mapping[str, Any] | None = None
    summary: str = ""
