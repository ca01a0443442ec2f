"""What differs between the types of jobs; the one pipeline that decides about them asks here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.lifecycle import JobType

from .replacement import Budget


@dataclass(frozen=True, slots=True)
class Policy:
    """How jobs of a type are run.

    ``slots_complete`` says that a slot whose execution has ended well is done, so that the job has
    completed with its last one, and that another task makes all of them run again.  ``budget`` is
    how much of so many slots may be missing while some are replaced.
    """

    slots_complete: bool
    budget: Callable[[int], Budget]


POLICIES: Mapping[JobType, Policy] = {
    # Nobody waits for a batch to answer: everything may be replaced at once.
    JobType.BATCH: Policy(slots_complete=True, budget=lambda count: Budget(max(count, 1))),
}


def policy_of(job_type: JobType | str) -> Policy:
    """The policy of *job_type*; raises LookupError for a type that nobody decides about."""
    try:
        return POLICIES[JobType(job_type)]
    except (KeyError, ValueError):
        raise LookupError(f"nothing decides about jobs of type {str(job_type)!r}") from None
