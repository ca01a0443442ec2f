"""Executions: listed, and shown with every transition that they made."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Router

from orchestrator.models import Execution, ExecutionHistory, ExecutionOutput

from . import references, schemas, serializers
from .authentication import READ, caller
from .operations import operation
from .pagination import newest_page
from .responses import answer

MOST_HISTORY = 200
"""Two lanes of a dozen states each: no execution has more."""

router = Router(tags=["executions"])


@router.get("/executions", auth=READ)
@operation(schemas.Page[schemas.Execution], problems={404, 409})
def list_executions(request: HttpRequest, query: schemas.Executions) -> HttpResponse:
    """The newest executions first."""
    rows = Execution.objects.select_related("job", "node")
    rows = caller(request).sight(query.namespace).of(rows)
    if query.observed:
        rows = rows.filter(observed__in=query.observed)
    if query.node:
        rows = rows.filter(node=references.node(query.node, removed=True))
    return newest_page(request, query, rows, serializers.execution)


@router.get("/executions/{ref}", auth=READ)
@operation(schemas.ExecutionInFull)
def show_execution(request: HttpRequest, ref: str) -> HttpResponse:
    """One execution, with its history and the last that it printed."""
    row = references.execution(request, ref)
    history = ExecutionHistory.objects.filter(execution_id=row.pk).order_by("rev", "at", "lane")
    output = ExecutionOutput.objects.filter(execution=row).first()
    return answer(
        serializers.execution(
            row,
            schemas.ExecutionInFull,
            history=[schemas.Transition.of(it, reason=it.why) for it in history[:MOST_HISTORY]],
            output=None if output is None else schemas.Output.of(output),
        )
    )
