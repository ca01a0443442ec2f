"""Lists in pages.  A cursor is the last row's place in the order, signed, so it can be trusted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from django.core import signing
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Schema
from pydantic import Field

from .problems import Problem, invalid_parameters
from .responses import answer
from .validation_errors import mistake

MOST = 500


class Paging(Schema):
    """What every list takes.  A list's own filters are fields beside these; nothing else is."""

    limit: Annotated[int, Field(ge=1, le=MOST, description="how many at most")] = 50
    cursor: Annotated[str, Field(max_length=500, description="next_cursor of a page")] = ""


def words(text: str, known: Iterable[str], name: str) -> list[str]:
    """The comma-separated words of a filter, each of which must be *known*; empty for no filter."""
    if not text:
        return []
    given, allowed = text.split(","), list(known)
    unknown = [repr(word[:40]) for word in dict.fromkeys(given) if word not in allowed]
    if unknown:
        message = f"{', '.join(unknown)} is none of {', '.join(allowed)}"
        raise invalid_parameters([mistake(name, message, "Separate several with commas.")])
    return given


def newest_first(rows: QuerySet[Any], after: list[Any] | None) -> QuerySet[Any]:
    """*rows* by ``-created_at, id``, after the place that `place_in_time` gave."""
    if after is not None:
        at, key = datetime.fromisoformat(after[0]), UUID(after[1])
        rows = rows.filter(created_at__lte=at).filter(Q(created_at__lt=at) | Q(pk__gt=key))
    return rows.order_by("-created_at", "pk")


def place_in_time(row: Any) -> list[Any]:
    return [row.created_at.isoformat(), str(row.pk)]


def page(
    request: HttpRequest,
    paging: Paging,
    rows: Callable[[list[Any] | None], QuerySet[Any]],
    place: Callable[[Any], list[Any]],
    show: Callable[[Any], dict[str, Any]],
) -> HttpResponse:
    """One page of what *rows* gives after a place; *place* says where a row stands."""
    only(request, paging)
    salt = _salt(request, paging)
    after = _open(paging.cursor, salt) if paging.cursor else None
    found: list[Model] = list(rows(after)[: paging.limit + 1])
    more = len(found) > paging.limit
    found = found[: paging.limit]
    # Without a time, so that a list in which nothing has changed keeps its ETag.
    cursor = signing.Signer(salt=salt).sign_object(place(found[-1])) if more else None
    data = {"items": [show(row) for row in found], "next_cursor": cursor}
    if cursor is None:
        return answer(data)
    query = request.GET.copy()
    query["cursor"] = cursor
    return answer(data, Link=f'<{request.path}?{query.urlencode()}>; rel="next"')


def only(request: HttpRequest, allowed: Schema) -> None:
    """Refuse what *allowed* does not have, and what is given twice: neither may go unheard."""
    fields = type(allowed).model_fields
    found = [
        mistake(name[:80], "is an unknown parameter", f"Known: {', '.join(fields)}.")
        for name in sorted(set(request.GET) - set(fields))[:20]
    ]
    found += [
        mistake(name, "is given twice", "Give it once; several words are separated by commas.")
        for name in fields
        if len(request.GET.getlist(name)) > 1
    ]
    if found:
        raise invalid_parameters(found)


def _salt(request: HttpRequest, paging: Paging) -> str:
    """A cursor is good for the list and the filters that it was given for, and for no other."""
    filters = json.dumps(paging.model_dump(exclude={"limit", "cursor"}), sort_keys=True)
    digest = hashlib.sha256(f"{request.path}\n{filters}".encode()).hexdigest()
    return f"muster.cursor.{digest}"


def _open(cursor: str, salt: str) -> list[Any]:
    try:
        place: list[Any] = signing.Signer(salt=salt).unsign_object(cursor)
    except signing.BadSignature:
        raise Problem(
            400,
            "invalid-cursor",
            "This cursor is not of this list.",
            hint="Take next_cursor as it is, and keep the filters it was given for.",
        ) from None
    return place
