"""The weeks of the journal: each is a partition, made ahead of its time and dropped whole.

The functions that do so are the schema owner's, see migration 0020: the application's role makes
and drops nothing itself.  They drop no week that ended less than seven days ago, whoever asks.
Each is one statement, so a process that is stopped meanwhile holds no lock, and waits for one
for a tenth of a second at most; then it fails, and is to be tried again later.
"""

from __future__ import annotations

from datetime import datetime

from django.db import connection

AHEAD = 5
"""Weeks for which there are partitions beside the current one.

What finds none goes into the default partition, and from there into one of its own.
"""


def open_weeks() -> list[str]:
    """Make the partitions of this week and of those ahead; the names of those that are new."""
    return _call("orchestrator_open_event_weeks", AHEAD)


def drop_weeks(before: datetime) -> list[str]:
    """Drop the partitions whose events are all older than *before*; their names."""
    return _call("orchestrator_drop_event_weeks", before)


BEGINS = """
    SELECT CASE WHEN bool_and(begins IS NOT NULL) THEN min(begins) END AS begins
    FROM orchestrator_event_weeks()
"""
"""From when on the journal is kept; null if it is from its beginning."""


def begins() -> datetime | None:
    """From when on the journal is kept; None if it is from its beginning."""
    with connection.cursor() as cursor:
        cursor.execute(BEGINS)
        (at,) = cursor.fetchone()
    found: datetime | None = at
    return found


def _call(function: str, argument: int | datetime) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(%s)", [argument])
        (names,) = cursor.fetchone()
    return list(names)
