"""The journal as a feed: every fact once, in one order, from a cursor on."""

from __future__ import annotations

from collections.abc import Iterable

from django.http import HttpRequest, HttpResponse
from ninja import Router

from orchestrator.access.sight import ALL
from orchestrator.models import Event, journal

from . import schemas
from .authentication import READ, caller
from .operations import operation
from .parsing import refuse_both
from .responses import answer

router = Router(tags=["events"])


@router.get("/events", auth=READ)
@operation(schemas.Events, problems={409})
def list_events(request: HttpRequest, query: schemas.Feed) -> HttpResponse:
    """What happened after the cursor, the oldest first.

    With `last`, the newest ones; what follows their cursor may repeat some of them by id.
    """
    seen = caller(request).sight(query.namespace or ALL)
    if query.last:
        refuse_both(request, "last", "cursor", "limit")
        cursor = journal.latest()  # Taken first: an event may come twice, and none is missed.
        newest = seen.of(Event.objects.order_by("-pk"))[: query.last]
        return _events(reversed(newest), cursor)
    if query.cursor == "now":
        return _events((), journal.latest())
    page = journal.after(
        query.cursor or None, query.limit, namespaces=seen.names, cluster=seen.cluster
    )
    return _events(page.events, page.cursor)


def _events(rows: Iterable[Event], cursor: str) -> HttpResponse:
    return answer(schemas.Events(items=[schemas.Event.of(row) for row in rows], cursor=cursor))
