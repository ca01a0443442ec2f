"""Deleting what is over without holding anybody up."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

AT_ONCE = 500


def delete_some(rows: QuerySet[Any]) -> None:
    """Delete *rows*, a bounded number of them at a time."""
    rows.model._base_manager.filter(pk__in=rows.values("pk")[:AT_ONCE]).delete()
