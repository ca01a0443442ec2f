"""One execution, its history and its neighbours."""

from __future__ import annotations

from datetime import datetime, timedelta

from nodes.membership.silence import SILENT_AFTER
from orchestrator.access.sight import Sight
from orchestrator.endpoint.finding import find
from orchestrator.models import Evaluation, Execution, ExecutionHistory, ExecutionOutput

from .paging import Part, part

MOST_TRANSITIONS = 100
MOST_ATTEMPTS = 50
MOST_PLACED = 50

#: By so much may the clock of the database have been set meanwhile.
_CLOCK = timedelta(minutes=1)


def one(seen: Sight, reference: str) -> Execution:
    """The execution in sight with this id, or whose id begins so; raises NotFound or Ambiguous."""
    rows = seen.of(Execution.objects.select_related("job", "node__heartbeat"))
    return find(rows, "execution", reference)


def silent_since(execution: Execution, now: datetime) -> datetime | None:
    """When the node of a live *execution* was last heard of, if that is too long ago."""
    beat = getattr(execution.node, "heartbeat", None)
    if execution.ended_at or beat is None or now - beat.seen_at < SILENT_AFTER:
        return None
    seen: datetime = beat.seen_at
    return seen


def history(execution: Execution) -> list[ExecutionHistory]:
    """Its transitions in the order of its revisions."""
    rows = ExecutionHistory.objects.filter(execution_id=execution.pk)
    return list(rows.order_by("rev", "lane")[:MOST_TRANSITIONS])


def output(execution: Execution) -> ExecutionOutput | None:
    """The last bytes that it printed; None until its node has reported its end."""
    return ExecutionOutput.objects.filter(pk=execution.pk).first()


def attempts(execution: Execution) -> Part[Execution]:
    """The newest attempts of the same slot, in order: those before it and those after it."""
    rows = Execution.objects.filter(job_id=execution.job_id, round=execution.round)
    rows = rows.filter(slot=execution.slot).only(
        "pk", "attempt", "desired", "observed", "created_at"
    )
    newest = part(rows.order_by("-created_at", "pk"), MOST_ATTEMPTS)
    newest.sort(key=lambda it: (it.attempt, it.created_at, it.pk))
    return newest


def placed_by(evaluation: Evaluation) -> Part[Execution]:
    """What *evaluation* decided to run, by slot: made between its lease and its end.

    So it is found among those of its job.
    """
    rows = Execution.objects.filter(job=evaluation.job_id, evaluation=evaluation)
    rows = rows.filter(created_at__gte=evaluation.leased_at - _CLOCK)
    if evaluation.finished_at:
        rows = rows.filter(created_at__lte=evaluation.finished_at + _CLOCK)
    rows = rows.select_related("job", "node")
    return part(rows.order_by("slot", "pk"), MOST_PLACED)
