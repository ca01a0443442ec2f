"""The queue of jobs that wait for evaluation."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Router

from orchestrator import broker
from orchestrator.models import ClusterSetting
from orchestrator.spec.mistakes import mistake

from . import schemas
from .authentication import OPERATE_QUEUE, READ, caller
from .operations import operation
from .problems import invalid_parameters
from .responses import answer

router = Router(tags=["queue"])


@router.get("/queue", auth=READ)
@operation(schemas.Queue)
def show_queue(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - ninja's first
    """How many jobs wait for evaluation, and in what way."""
    return answer(queue())


@router.post("/queue/pause", auth=OPERATE_QUEUE)
@operation(schemas.Queue)
def pause(request: HttpRequest, body: schemas.Pause) -> HttpResponse:
    """Evaluate nothing until it is resumed; the reason is shown everywhere."""
    if not (reason := body.reason.strip()):
        raise invalid_parameters([mistake("reason", "is empty", "Say more.")])
    broker.pause(reason=reason, actor=caller(request).actor)
    return answer(queue())


@router.post("/queue/resume", auth=OPERATE_QUEUE)
@operation(schemas.Queue)
def resume(request: HttpRequest, body: schemas.Nothing) -> HttpResponse:  # noqa: ARG001
    """Evaluate again."""
    broker.resume(actor=caller(request).actor)
    return answer(queue())


def queue() -> schemas.Queue:
    setting = ClusterSetting.objects.get(pk=1)
    return schemas.Queue.of(setting, paused=setting.scheduling_paused, stats=broker.stats())
