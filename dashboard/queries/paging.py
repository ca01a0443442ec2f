"""Keyset paging: a page begins where the one before it ended, whatever was added meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Model, Q, QuerySet

M = TypeVar("M", bound=Model)

PAGE = 50


@dataclass(frozen=True, slots=True)
class Slice(Generic[M]):
    """Rows, newest first; ``older`` names where the next page begins, "" when this is the last."""

    rows: Sequence[M]
    older: str
    first: bool

    def links(self, **chosen: object) -> dict[str, Any]:
        """For ``parts/paging.html``: the parameters of the other pages, with what is *chosen*."""
        return {
            "older": urlencode(chosen | {"before": self.older}) if self.older else "",
            "newest": urlencode(chosen),
            "first": self.first,
        }


def newest(rows: QuerySet[M], before: str, size: int = PAGE) -> Slice[M]:
    """Up to *size* of *rows*, by ``created_at`` downwards, after the key *before*."""
    key = _parse(before)
    if key is not None:
        at, last = key
        rows = rows.filter(Q(created_at__lt=at) | Q(created_at=at, pk__gt=last))
        rows = rows.filter(created_at__lte=at)  # What the index can begin at.
    found = list(rows.order_by("-created_at", "pk")[: size + 1])
    more = len(found) > size
    found = found[:size]
    return Slice(found, _key(found[-1]) if more else "", key is None)


def _key(row: Model) -> str:
    return f"{row.created_at.isoformat()}~{row.pk}"  # type: ignore[attr-defined]


def _parse(text: str) -> tuple[datetime, UUID] | None:
    at, _, last = text.replace(" ", "+").partition("~")
    try:
        instant = datetime.fromisoformat(at)
        return (instant, UUID(last)) if instant.tzinfo else None
    except ValueError:
        return None
