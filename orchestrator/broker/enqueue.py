"""Asking for evaluations: insert-only, so it takes no lock and may be done from anywhere."""

from __future__ import annotations

from collections.abc import Iterable
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


def enqueue(jobs: UUID | Iterable[UUID], trigger: Trigger) -> None:
    """Ask for one evaluation of each of *jobs*, in the caller's transaction.

    Once that commits, each will be evaluated at least once more; if it rolls back nothing was
    asked for.  Of a job that is not there nothing is asked.
    """
    ids = [jobs] if isinstance(jobs, UUID) else list(dict.fromkeys(jobs))
    if not ids:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO orchestrator_brokertrigger
                (job_id, urgency, namespace, type, trigger, since)
            SELECT id, -priority, namespace_id, type, %s, statement_timestamp()
            FROM orchestrator_job WHERE id = ANY (%s)
            """,
            [trigger.value, ids],
        )
    after_commit(Hint.WORK)


def capacity_freed(nodes: Iterable[UUID]) -> None:
    """Say that these nodes have more to give than they had; blocked jobs that fit are woken."""
    ids = list(dict.fromkeys(nodes))
    if not ids:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orchestrator_freednode (node_id) SELECT unnest(%s::uuid[])", [ids]
        )
    after_commit(Hint.WORK)
