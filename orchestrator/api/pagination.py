"""Lists in pages.  A cursor is the last row's place in the order, signed, so it can be trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from django.core import signing
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse

from orchestrator.endpoint.finding import newest_first, place_in_time

from .problems import Problem
from .responses import answer
from .schemas import Answer, Page, Paging


def page(
    request: HttpRequest,
    query: Paging,
    rows: Callable[[list[Any] | None], QuerySet[Any]],
    place: Callable[[Any], list[Any]],
    show: Callable[[Any], Answer],
) -> HttpResponse:
    """One page of what *rows* gives after a place; *place* says where a row stands."""
    salt = _salt(request, query)
    after = _open(query.cursor, salt) if query.cursor else None
    found: list[Model] = list(rows(after)[: query.limit + 1])
    more = len(found) > query.limit
    found = found[: query.limit]
    # Without a time, so that a list in which nothing has changed keeps its ETag.
    cursor = signing.Signer(salt=salt).sign_object(place(found[-1])) if more else None
    data = Page(items=[show(row) for row in found], next_cursor=cursor)
    if cursor is None:
        return answer(data)
    following = request.GET.copy()
    following["cursor"] = cursor
    return answer(data, Link=f'<{request.path}?{following.urlencode()}>; rel="next"')


def newest_page(
    request: HttpRequest, query: Paging, rows: QuerySet[Any], show: Callable[[Any], Answer]
) -> HttpResponse:
    """One page of *rows*, the newest first."""
    return page(request, query, partial(newest_first, rows), place_in_time, show)


def page_by(
    column: str,
    request: HttpRequest,
    query: Paging,
    rows: QuerySet[Any],
    show: Callable[[Any], Answer],
) -> HttpResponse:
    """One page of *rows* by a *column* that tells them apart; downwards with a dash before it."""
    name, compared = column.removeprefix("-"), "lt" if column.startswith("-") else "gt"
    ordered = rows.order_by(column)

    def after(place: list[Any] | None) -> QuerySet[Any]:
        return ordered if place is None else ordered.filter(**{f"{name}__{compared}": place[0]})

    return page(request, query, after, lambda row: [getattr(row, name)], show)


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
