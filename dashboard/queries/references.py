"""What an address names: by an id, which only one thing has and nobody can choose, or by a name."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

from django.db.models import Model, QuerySet

M = TypeVar("M", bound=Model)


def with_id(rows: QuerySet[M], reference: str) -> M | None:
    """The one of *rows* whose id *reference* spells; None also when it spells none."""
    try:
        key = UUID(reference)
    except ValueError:
        return None
    return rows.filter(pk=key).first()
