"""What a node began before anybody had approved it: refused here, and stopped there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.lifecycle import Desired, need_approval, path
from orchestrator.models import ExecutionHistory, journal
from orchestrator.planners.transitions import Changes, LockedExecution, Outcome

_REASON = "its node began it before anybody had approved it"


def lacks_approval(execution: LockedExecution, events: Iterable[str]) -> bool:
    """Whether *events* cannot have happened rightly: nobody has ever approved *execution*.

    No approval is forgotten: it is durable before its node is told.  What was stopped may have
    been approved before; its history says so.
    """
    if execution.desired is Desired.RUNNING or not need_approval(events):
        return False
    approvals = ExecutionHistory.objects.filter(
        execution_id=execution.id, lane="desired", after=Desired.RUNNING.value
    )
    return execution.desired is Desired.PENDING or not approvals.exists()


def refuse(
    changes: Changes, execution: LockedExecution, *, actor: str, releases: bool = False
) -> None:
    """End such an execution.

    It counts as the node's refusal, so that the job keeps away from there for a while.  Unless it
    *releases* its resources they are held until the node has stopped it.
    """
    changes.follow(
        execution,
        path(execution.observed, "decline") or (),
        actor=actor,
        reason=_REASON,
        releases=releases,
        outcome=Outcome(code="not-approved", message=_REASON),
    )


def record(executions: Sequence[LockedExecution]) -> None:
    """Write to the journal which executions were refused."""
    journal.record(
        journal.fact(
            "execution",
            "not-approved",
            _REASON + ("; the node is told to stop it" if execution.reserved else ""),
            job=execution.job,
            execution=execution.id,
            node=execution.node,
        )
        for execution in executions[:100]
    )
