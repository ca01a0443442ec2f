"""Which scheduler decides about which type of job."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.lifecycle import JobType

from . import slot_scheduler
from .plan import Plan
from .world import World

Scheduler = Callable[[World], Plan]

SCHEDULERS: Mapping[JobType, Scheduler] = {JobType.BATCH: slot_scheduler.schedule}


def scheduler_for(job_type: JobType | str) -> Scheduler:
    """The scheduler of *job_type*; raises LookupError for a type nobody decides about."""
    try:
        return SCHEDULERS[JobType(job_type)]
    except (KeyError, ValueError):
        raise LookupError(f"no scheduler decides about jobs of type {str(job_type)!r}") from None
