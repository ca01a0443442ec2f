"""The cluster on one screen."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Count, Q, Sum
from django.db.models.functions import Coalesce, Now
from django.http import HttpRequest, HttpResponse
from ninja import Router

from nodes.models import Node
from nodes.protocol.resources import DIMENSIONS
from orchestrator.endpoint import health
from orchestrator.lifecycle import ENDED, JOB
from orchestrator.models import Job

from . import schemas
from .authentication import READ
from .operations import operation
from .queue import queue
from .responses import answer

#: Ended jobs are kept for months; those of the last day are what a screen has room for.
RECENT = timedelta(days=1)
_LIVE = [state.value for state in JOB.states if state not in ENDED]

router = Router(tags=["status"])


@router.get("/status", auth=READ)
@operation(schemas.Status)
def show_status(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - ninja's first
    """Jobs by state (ended ones if created within a day), nodes, capacity, and the queue."""
    now = health.current()
    offered = Node.objects.filter(approval="approved").aggregate(
        **{f"{of}_{it}": Coalesce(Sum(f"{of}_{it}"), 0) for of in _AMOUNTS for it in DIMENSIONS}
    )
    capacity, allocated = (
        schemas.Resources(**{it: int(offered[f"{of}_{it}"]) for it in DIMENSIONS})
        for of in _AMOUNTS
    )
    return answer(
        schemas.Status(
            ready=now.trouble is None,
            missing=now.trouble.sentence if now.trouble else "",
            warning=now.warning,
            jobs=_jobs(),
            nodes=_nodes(),
            capacity=capacity,
            allocated=allocated,
            queue=queue(),
        )
    )


_AMOUNTS = ("capacity", "allocated")


def _jobs() -> dict[str, int]:
    shown = Q(state__in=_LIVE) | Q(
        state__in=[state.value for state in ENDED], created_at__gte=Now() - RECENT
    )
    rows = Job.objects.filter(shown).values_list("state").annotate(number=Count("pk"))
    found = dict(rows.order_by())
    return {state.value: found.get(state.value, 0) for state in JOB.states}


def _nodes() -> schemas.NodeCounts:
    approved = Q(approval="approved")
    counts = Node.objects.aggregate(
        total=Count("pk"),
        approved=Count("pk", filter=approved),
        waiting_for_approval=Count("pk", filter=Q(approval="pending")),
        connected=Count("pk", filter=approved & Q(connection="connected")),
        lost=Count("pk", filter=approved & Q(connection="lost")),
        draining=Count("pk", filter=approved & Q(draining=True)),
        degraded=Count("pk", filter=approved & ~Q(degraded="")),
    )
    return schemas.NodeCounts(**counts)
