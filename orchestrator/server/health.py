"""The probes: is this process alive, and does the cluster take jobs?"""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from orchestrator.endpoint import health


@require_safe
@never_cache
def healthz(_request: HttpRequest) -> JsonResponse:
    """200 as long as this process answers at all; asks nobody else."""
    return JsonResponse({"status": "ok"})


@require_safe
@never_cache
def readyz(_request: HttpRequest) -> JsonResponse:
    """200 from the moment the cluster takes jobs; before that 503 and what is missing."""
    now = health.current()
    trouble = now.trouble
    if trouble is None:
        detail = {"detail": now.warning} if now.warning else {}
        return JsonResponse({"status": "ready", **detail})
    told = {"missing": trouble.sentence, "code": trouble.code, "hint": trouble.cure}
    return JsonResponse({"status": "not ready", **told}, status=503)
