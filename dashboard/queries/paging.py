"""Keyset paging: a page begins where the one before it ended, whatever was added meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Model, QuerySet

from orchestrator.endpoint.finding import newest_first, place_in_time

M = TypeVar("M", bound=Model)
T = TypeVar("T")
U = TypeVar("U")

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


class Part(list[T]):
    """The beginning of a list; *more* says that it goes on."""

    more = False

    def each(self, show: Callable[[T], U]) -> Part[U]:
        """The same with what *show* makes of each."""
        shown = Part(map(show, self))
        shown.more = self.more
        return shown


def part(rows: QuerySet[M], most: int) -> Part[M]:
    """The first *most* of *rows*."""
    found = Part(rows[: most + 1])
    found.more = len(found) > most
    del found[most:]
    return found


def newest(rows: QuerySet[M], before: str, size: int = PAGE) -> Slice[M]:
    """Up to *size* of *rows*, by ``created_at`` downwards, after the key *before*."""
    after = _parse(before)
    found = list(newest_first(rows, after)[: size + 1])
    older = "~".join(place_in_time(found[size - 1])) if len(found) > size else ""
    return Slice(found[:size], older, after is None)


def _parse(text: str) -> tuple[str, str] | None:
    at, _, last = text.replace(" ", "+").partition("~")
    try:
        return (at, str(UUID(last))) if datetime.fromisoformat(at).tzinfo else None
    except ValueError:
        return None
