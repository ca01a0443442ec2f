"""Asking for evaluations: insert-only, so it takes no lock and may be done from anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from django.db import connection

from nodes.hints import Hint, after_commit
from orchestrator.lifecycle import Trigger

#: What people do.  It ends a back-off: somebody waits for the answer.
BY_PEOPLE = (
    Trigger.JOB_SUBMIT,
    Trigger.JOB_UPDATE,
    Trigger.JOB_STOP,
    Trigger.JOB_RERUN,
    Trigger.JOB_SCALE,
    Trigger.OPERATOR,
)


def enqueue(
    jobs: UUID | Iterable[UUID], trigger: Trigger, *, not_before: datetime | None = None
) -> None:
    """Ask for one evaluation of each of *jobs*, in the caller's transaction.

    Once that commits, each will be evaluated at least once more, not before *not_before*; if it
    rolls back nothing was asked for.
    """
    ids = [jobs] if isinstance(jobs, UUID) else list(dict.fromkeys(jobs))
    if not ids:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO orchestrator_brokertrigger (job_id, trigger, not_before)
            SELECT job, %s, coalesce(%s::timestamptz, statement_timestamp())
            FROM unnest(%s::uuid[]) AS job
            """,
            [trigger.value, not_before, ids],
        )
    after_commit(Hint.WORK)


def capacity_freed(nodes: Iterable[UUID]) -> None:
    """Say that these nodes have more to give than they had; blocked jobs that fit are woken."""
    ids = list(dict.fromkeys(nodes))
    if not ids:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO orchestrator_brokertrigger (node_id, trigger)
            SELECT node, %s FROM unnest(%s::uuid[]) AS node
            """,
            [Trigger.CAPACITY.value, ids],
        )
    after_commit(Hint.WORK)
