"""What has been decided about a job, as values, before a plan is made of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.explain.reasons import Reason
from orchestrator.lifecycle import JobState

from .plan import Blocked, Place, Why
from .reconcile import Diff
from .slot_history import SlotHistory
from .world import Progress, World


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the missing slots go.

    ``unplaced`` go nowhere, ``blocked`` says why; ``avoided`` that nodes would have room which have
    refused the job a moment ago.
    """

    place: tuple[Place, ...] = ()
    unplaced: tuple[int, ...] = ()
    blocked: Blocked | None = None
    avoided: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ends, why (None: it has ended before), and why its executions are stopped."""

    state: JobState
    reason: Reason | None
    why: Why


@dataclass(frozen=True, slots=True)
class Decision:
    """Everything decided about a job, before a plan is made of it."""

    world: World
    history: SlotHistory
    progress: Progress
    diff: Diff
    ending: Ending | None = None
    placement: Placement = field(default_factory=Placement)
