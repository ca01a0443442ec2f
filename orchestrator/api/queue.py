"""The queue of jobs that wait for evaluation."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from django.http import HttpRequest, HttpResponse
from ninja import Router

from orchestrator import broker
from orchestrator.models import ClusterSetting

from . import schemas
from .authentication import OPERATE, READ, caller
from .jobs import Nothing
from .parsing import read
from .responses import answer

router = Router(tags=["queue"])


@router.get("/queue", auth=READ, response=schemas.Queue)
def show_queue(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - ninja's first
    """How many jobs wait for evaluation, and in what way."""
    return answer(queue())


class Pause(msgspec.Struct, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern="^[^\0]*$")]


@router.post(
    "/queue/pause",
    auth=OPERATE,
    response=schemas.Queue,
    openapi_extra=schemas.body(
        "reason", reason={"type": "string", "minLength": 1, "maxLength": 500}
    ),
)
def pause(request: HttpRequest) -> HttpResponse:
    """Evaluate nothing until it is resumed; the reason is shown everywhere."""
    broker.pause(reason=read(request, Pause).reason, actor=caller(request).actor)
    return answer(queue())


@router.post("/queue/resume", auth=OPERATE, response=schemas.Queue)
def resume(request: HttpRequest) -> HttpResponse:
    """Evaluate again."""
    read(request, Nothing)
    broker.resume(actor=caller(request).actor)
    return answer(queue())


def queue() -> dict[str, Any]:
    setting = ClusterSetting.objects.get(pk=1)
    return {
        "paused": setting.scheduling_paused,
        "paused_reason": setting.paused_reason,
        "paused_by": setting.paused_by,
        "paused_at": setting.paused_at,
        "stats": broker.stats(),
    }
