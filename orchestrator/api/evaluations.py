"""Evaluations: what was looked at, when, why, and what came of it."""

from __future__ import annotations

from typing import Annotated, Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from pydantic import Field

from orchestrator.errors import NotFound
from orchestrator.lifecycle import EvaluationState
from orchestrator.models import Evaluation

from . import schemas, shapes
from .authentication import READ
from .pagination import Paging, page, words
from .responses import answer

router = Router(tags=["evaluations"])


class Evaluations(Paging):
    state: Annotated[str, Field(max_length=100, description="one or several, with commas")] = ""


@router.get("/evaluations", auth=READ, response=schemas.page_of(schemas.Evaluation))
def list_evaluations(request: HttpRequest, paging: Query[Evaluations]) -> HttpResponse:
    """The newest evaluations of all jobs first."""
    found = Evaluation.objects.select_related("job").order_by("-pk")
    if states := words(paging.state, EvaluationState, "state"):
        found = found.filter(state__in=states)

    def rows(after: list[Any] | None) -> QuerySet[Evaluation]:
        return found if after is None else found.filter(pk__lt=after[0])

    return page(request, paging, rows, lambda row: [row.pk], shapes.evaluation)


@router.get("/evaluations/{number}", auth=READ, response=schemas.EvaluationInFull)
def show_evaluation(request: HttpRequest, number: str) -> HttpResponse:  # noqa: ARG001 - ninja's first
    """One evaluation, with the record of its decision."""
    found = (
        Evaluation.objects.select_related("job").filter(pk=int(number)).first()
        if number.isascii() and number.isdecimal() and len(number) < 19
        else None
    )
    if found is None:
        raise NotFound(kind="evaluation", name=number[:100])
    return answer({**shapes.evaluation(found), "record": found.record})
