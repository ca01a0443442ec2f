"""The rows of slots that are not as all begin: written where a plan says something else of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from django.db import connection

Slots = Mapping[int, tuple[Any, ...]]


def write(changes: Iterable[tuple[UUID, Slots, Slots]]) -> None:
    """For each job what was known of its slots before, and what is after."""
    begun: list[tuple[Any, ...]] = []
    gone: list[tuple[UUID, int]] = []
    for job, before, after in changes:
        gone += [(job, slot) for slot in before.keys() - after.keys()]
        begun += [(job, slot, *it) for slot, it in after.items() if before.get(slot) != it]
    with connection.cursor() as cursor:
        if gone:
            cursor.execute(
                "DELETE FROM orchestrator_slotstate s USING unnest(%s::uuid[], %s::int[])"
                " AS g(job, slot) WHERE s.job_id = g.job AND s.slot = g.slot",
                [list(column) for column in zip(*gone, strict=True)],
            )
        if begun:
            cursor.execute(
                "INSERT INTO orchestrator_slotstate"
                " (job_id, slot, attempts, failed_attempts, retry_at, interruptions)"
                " SELECT * FROM unnest(%s::uuid[], %s::int[], %s::int[], %s::int[],"
                " %s::timestamptz[], %s::int[]) ON CONFLICT (job_id, slot) DO UPDATE SET"
                " attempts = excluded.attempts, failed_attempts = excluded.failed_attempts,"
                " retry_at = excluded.retry_at, interruptions = excluded.interruptions",
                [list(column) for column in zip(*begun, strict=True)],
            )
