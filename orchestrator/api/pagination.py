"""Lists in pages.  A cursor is the last row's place in the order, signed, so it can be trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from django.core import signing
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse

from .problems import Problem
from .responses import answer
from .schemas import Answer, Page, Paging


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
    query: Paging,
    rows: Callable[[list[Any] | None], QuerySet[Any]],
    place: Callable[[Any], list[Any]],
    show: Callable[[list[Any]], Iterable[Answer]],
) -> HttpResponse:
    """One page of what *rows* gives after a place; *place* says where a row stands.

    *show* makes answers of the rows, all at once.
    """
    salt = _salt(request, query)
    after = _open(query.cursor, salt) if query.cursor else None
    found: list[Model] = list(rows(after)[: query.limit + 1])
    more = len(found) > query.limit
    found = found[: query.limit]
    # Without a time, so that a list in which nothing has changed keeps its ETag.
    cursor = signing.Signer(salt=salt).sign_object(place(found[-1])) if more else None
    data = Page(items=list(show(found)), next_cursor=cursor)
    if cursor is None:
        return answer(data)
    following = request.GET.copy()
    following["cursor"] = cursor
    return answer(data, Link=f'<{request.path}?{following.urlencode()}>; rel="next"')


def each(show: Callable[[Any], Answer]) -> Callable[[list[Any]], Iterable[Answer]]:
    """*show*, for rows that are shown one by one."""
    return partial(map, show)


def _salt(request: HttpRequest, query: Paging) -> str:
    """A cursor is good for the list and the filters that it was given for, and for no other."""
    filters = msgspec.json.encode(msgspec.structs.replace(query, limit=1, cursor=""))
    digest = hashlib.sha256(request.path.encode() + b"\n" + filters).hexdigest()
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
