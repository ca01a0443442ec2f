"""What a node began before anybody had approved it: refused here, and stopped there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from orchestrator.explain import stop_causes
from orchestrator.lifecycle import Desired, StopCause, need_approval, path
from orchestrator.models import Event, ExecutionHistory, journal
from orchestrator.planners.transitions import Changes, LockedExecution, Outcome

_SENTENCE = stop_causes.sentence(StopCause.NOT_APPROVED)


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
        reason="",
        cause=StopCause.NOT_APPROVED,
        releases=releases,
        outcome=Outcome(code="not-approved", message=_SENTENCE),
    )


def record(executions: Sequence[LockedExecution]) -> None:
    """Write to the journal which executions were refused."""
    journal.record(facts(executions))


def facts(executions: Sequence[LockedExecution]) -> list[Event]:
    """Which executions were refused: one row for each node, which names the first of them."""
    by_node: dict[UUID, list[LockedExecution]] = {}
    for execution in executions:
        by_node.setdefault(execution.node, []).append(execution)
    return [_fact(node, its) for node, its in by_node.items()]


def _fact(node: UUID, executions: Sequence[LockedExecution]) -> Event:
    first = executions[0]
    said = _SENTENCE + ("; the node is told to stop it" if first.reserved else "")
    if len(executions) == 1:
        return journal.fact(
            "execution", "not-approved", said, job=first.job, execution=first.id, node=node
        )
    return journal.fact(
        "node",
        "not-approved",
        f"the node began {len(executions):,} executions before anybody had approved them",
        node=node,
        executions=[str(it.id) for it in executions[:20]],
    )
