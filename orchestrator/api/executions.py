"""Executions: listed, and shown with every transition that they made."""

from __future__ import annotations

from typing import Annotated

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from pydantic import Field

from orchestrator.lifecycle import OBSERVED
from orchestrator.models import Execution, ExecutionHistory, ExecutionOutput

from . import references, schemas, shapes
from .authentication import READ
from .pagination import Paging, newest_first, page, place_in_time, words
from .responses import answer

MOST_HISTORY = 200
"""Two lanes of a dozen states each: no execution has more."""

router = Router(tags=["executions"])


class Executions(Paging):
    observed: Annotated[str, Field(max_length=200, description="one or several, with commas")] = ""
    node: Annotated[str, Field(max_length=63, description="name, id or beginning of an id")] = ""


@router.get("/executions", auth=READ, response=schemas.page_of(schemas.Execution))
def list_executions(request: HttpRequest, paging: Query[Executions]) -> HttpResponse:
    """The newest executions of all jobs first."""
    rows = Execution.objects.select_related("job", "node")
    if observed := words(paging.observed, OBSERVED.states, "observed"):
        rows = rows.filter(observed__in=observed)
    if paging.node:
        rows = rows.filter(node=references.node(paging.node, removed=True))
    return page(
        request, paging, lambda after: newest_first(rows, after), place_in_time, shapes.execution
    )


@router.get("/executions/{ref}", auth=READ, response=schemas.ExecutionInFull)
def show_execution(request: HttpRequest, ref: str) -> HttpResponse:  # noqa: ARG001 - ninja's first
    """One execution, with its history and the last that it printed."""
    row = references.execution(ref)
    history = ExecutionHistory.objects.filter(execution_id=row.pk).order_by("rev", "at", "lane")
    output = ExecutionOutput.objects.filter(execution=row).first()
    return answer(
        {
            **shapes.execution(row),
            "history": [shapes.transition(it) for it in history[:MOST_HISTORY]],
            "output": None if output is None else shapes.output(output),
        }
    )
