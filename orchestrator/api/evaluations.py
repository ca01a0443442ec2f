"""Evaluations: what was looked at, when, why, and what came of it."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Router

from orchestrator import access
from orchestrator.explain.errors import NotFound
from orchestrator.models import Evaluation

from . import schemas, serializers
from .authentication import READ, caller
from .operations import operation
from .pagination import page_by
from .responses import answer

router = Router(tags=["evaluations"])


@router.get("/evaluations", auth=READ)
@operation(schemas.Page[schemas.Evaluation])
def list_evaluations(request: HttpRequest, query: schemas.Evaluations) -> HttpResponse:
    """The newest evaluations first."""
    found = caller(request).sight(query.namespace).of(Evaluation.objects.select_related("job"))
    if query.state:
        found = found.filter(state__in=query.state)
    return page_by("-pk", request, query, found, serializers.evaluation)


@router.get("/evaluations/{number}", auth=READ)
@operation(schemas.EvaluationInFull)
def show_evaluation(request: HttpRequest, number: str) -> HttpResponse:
    """One evaluation, with the record of its decision."""
    seen = access.visible(caller(request).rights, Evaluation.objects.select_related("job"))
    found = (
        seen.filter(pk=int(number)).first()
        if number.isascii() and number.isdecimal() and len(number) < 19
        else None
    )
    if found is None:
        raise NotFound(kind="evaluation", name=number[:100])
    return answer(serializers.evaluation(found, schemas.EvaluationInFull))
