"""Timestamps as they come from the database, made by C.

Django gives each its own time zone, for which psycopg reads them by a regular expression: half of
what a worker did for a large job.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db.backends.postgresql.psycopg_any import BaseTzLoader
from django.db.backends.signals import connection_created


class TimestampLoader(BaseTzLoader):  # type: ignore[misc]  # Django has no types.
    """Reads what the database writes in UTC; all else, as infinity, as psycopg does."""

    timezone = UTC

    def load(self, data: Any) -> datetime:
        try:
            found = datetime.fromisoformat(bytes(data).decode())
        except ValueError:
            found = super().load(data)
        return found if found.tzinfo is UTC else found.astimezone(UTC)


def load_quickly() -> None:
    """Have every connection from now on load its timestamps so."""
    connection_created.connect(_register, dispatch_uid="timestamps")


def _register(connection: Any, **_: Any) -> None:
    if connection.timezone is UTC:
        connection.connection.adapters.register_loader("timestamptz", TimestampLoader)
