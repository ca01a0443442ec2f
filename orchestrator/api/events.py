"""The journal as a feed: every fact once, in one order, from a cursor on."""

from __future__ import annotations

from typing import Annotated

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Schema
from pydantic import Field

from orchestrator import journal
from orchestrator.models import Event

from . import schemas, shapes
from .authentication import READ
from .pagination import MOST, only
from .responses import answer

router = Router(tags=["events"])


class Feed(Schema):
    cursor: Annotated[
        str,
        Field(
            max_length=200,
            description="of the last answer; nothing for the beginning, `now` for the end",
        ),
    ] = ""
    limit: Annotated[int, Field(ge=1, le=MOST)] = 100
    last: Annotated[int, Field(ge=0, le=MOST, description="only so many newest ones")] = 0


@router.get("/events", auth=READ, response=schemas.Events)
def list_events(request: HttpRequest, feed: Query[Feed]) -> HttpResponse:
    """What happened after the cursor, the oldest first.

    With `last`, the newest ones; what follows their cursor may repeat some of them by id.
    """
    only(request, feed)
    if feed.last:
        cursor = journal.latest()  # Taken first: an event may come twice, and none is missed.
        newest = Event.objects.order_by("-pk")[: feed.last]
        return answer({"items": [shapes.event(it) for it in reversed(newest)], "cursor": cursor})
    if feed.cursor == "now":
        return answer({"items": [], "cursor": journal.latest()})
    page = journal.after(feed.cursor or None, feed.limit)
    return answer({"items": [shapes.event(it) for it in page.events], "cursor": page.cursor})
