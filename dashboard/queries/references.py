"""What an address names: by an id, which only one thing has and nobody can choose, or by a name.

The beginning of an id does, too, where nothing is called so and only one id begins so.
"""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

from django.db.models import Model, Q, QuerySet

M = TypeVar("M", bound=Model)

LEAST_DIGITS = 4


def named(rows: QuerySet[M], reference: str, name: Q | None = None) -> M | None:
    """The one of *rows* with this id, or else with this *name*, or whose id begins so."""
    try:
        found = rows.filter(pk=UUID(reference)).first()
    except ValueError:
        found = None
    if found is None and name is not None:
        found = rows.filter(name).first()
    begins = begins_with(reference)
    if found is None and begins is not None:
        some = list(rows.filter(begins)[:2])
        found = some[0] if len(some) == 1 else None
    return found


def begins_with(reference: str) -> Q | None:
    """Those whose id begins with *reference*; None where that spells no beginning of one."""
    digits = reference.replace("-", "").lower()
    if not LEAST_DIGITS <= len(digits) <= 32 or not set(digits) <= set("0123456789abcdef"):
        return None
    return Q(pk__gte=UUID(digits.ljust(32, "0")), pk__lte=UUID(digits.ljust(32, "f")))
