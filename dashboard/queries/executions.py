"""One execution, its history and its neighbours."""

from __future__ import annotations

from uuid import UUID

from orchestrator.models import Execution, ExecutionHistory, ExecutionOutput

MOST_TRANSITIONS = 100
MOST_ATTEMPTS = 50


def one(pk: UUID) -> Execution | None:
    return Execution.objects.filter(pk=pk).select_related("job", "node").first()


def history(execution: Execution) -> list[ExecutionHistory]:
    """Its transitions in the order of its revisions."""
    rows = ExecutionHistory.objects.filter(execution_id=execution.pk)
    return list(rows.order_by("rev", "lane")[:MOST_TRANSITIONS])


def output(execution: Execution) -> ExecutionOutput | None:
    """The last bytes that it printed; None until its node has reported its end."""
    return ExecutionOutput.objects.filter(pk=execution.pk).first()


def attempts(execution: Execution) -> list[Execution]:
    """The attempts of the same slot, in order: those before it and those after it."""
    rows = Execution.objects.filter(job_id=execution.job_id, round=execution.round)
    rows = rows.filter(slot=execution.slot).only("pk", "attempt", "desired", "observed")
    return sorted(rows.order_by("-created_at")[:MOST_ATTEMPTS], key=lambda e: (e.attempt, e.pk))
