"""Deleting what is over without holding anybody up."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet

AT_ONCE = 500


def delete_some(rows: QuerySet[Any]) -> None:
    """Delete *rows*, a bounded number of them at a time, but for those that somebody locks."""
    free = rows.select_for_update(skip_locked=True, of=("self",)).values("pk")[:AT_ONCE]
    with transaction.atomic():
        rows.model._base_manager.filter(pk__in=free).delete()
