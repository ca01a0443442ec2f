"""Facts as sentences.  They are made when somebody asks, and never stored."""

from __future__ import annotations

from nodes.models import Node
from orchestrator.lifecycle import MEANING, JobState, Observed
from orchestrator.models import Execution, Job
from orchestrator.models.spec_cache import load_progress

_STARTING = (
    Observed.NEW,
    Observed.ASK_FOR_BID,
    Observed.ASK_FOR_BID_ACCEPTED,
    Observed.BID_ACCEPTED,
    Observed.PREPARING,
)
#: What of a job's tally is said, in this order.
_COUNTED = (
    ("completed", (Observed.COMPLETED,)),
    ("running", (Observed.RUNNING, Observed.PUBLISHING)),
    ("starting", _STARTING),
)


def job(row: Job) -> str:
    """``3 of 5 running, 1 to be tried again at 2026-03-01 12:00:40 UTC``.

    Instants, no spans: the sentence is as true when it is read as when it was made.
    """
    if row.stop_requested and row.state not in _ENDED:
        return "stopping" + (f": {row.stop_reason}" if row.stop_reason else "")
    if row.state == JobState.PENDING:
        return "waits for its evaluation"
    if row.state in _ENDED or row.state == JobState.QUEUED:
        return row.reason or _done(row)
    said = _counts(row) + _retrying(row)
    return ", ".join(said) or row.reason or "begins"


_ENDED = {JobState.COMPLETED, JobState.FAILED, JobState.STOPPED}


def _done(row: Job) -> str:
    if row.count == 0:
        return "asks for no slots"
    return f"{min(row.tally.get(Observed.COMPLETED, 0), row.count)} of {row.count} completed"


def _counts(row: Job) -> list[str]:
    """Slots by what they do: of several executions of a slot, only one is counted."""
    said, rest = [], row.count
    for word, states in _COUNTED:
        number = min(rest, sum(row.tally.get(state, 0) for state in states))
        rest -= number
        if number:
            said.append(f"{number} of {row.count} {word}")
    return said


def _retrying(row: Job) -> list[str]:
    retry_at = load_progress(row.progress).retry_at
    waiting = [at for slot, at in retry_at.items() if slot < row.count]
    if not waiting:
        return []
    return [f"{len(waiting)} to be tried again at {min(waiting):%Y-%m-%d %H:%M:%S} UTC"]


def execution(row: Execution) -> str:
    """What is known of it, and why it ended if it did."""
    meaning = MEANING[Observed(row.observed)]
    if row.observed == Observed.COMPLETED or row.message in {"", meaning}:
        return meaning
    return f"{meaning}: {row.message}"


def node(row: Node) -> str:
    """The first thing that keeps it from work, or that nothing does."""
    reasons = (
        (row.removed_at is not None, "was removed"),
        (
            bool(row.quarantined),
            f"quarantined: {row.quarantined}; stop one of the two agents, then"
            f" `muster node release {row.name}`",
        ),
        (row.approval == "pending", "waits for approval"),
        (row.approval == "rejected", "was rejected"),
        (row.connection != "connected", f"is {row.connection}"),
        (bool(row.degraded), f"takes no new work: {row.degraded}"),
        (row.draining, "is being drained"),
        (not row.eligible, "takes no new work"),
    )
    return next((sentence for holds, sentence in reasons if holds), "takes work")
