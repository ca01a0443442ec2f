"""What of a job is gone, as the chores that removed it have written it down."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection

from orchestrator.explain.not_kept import NotKept

from . import periods
from .jobs import Job

#: So long everything is kept, whatever the settings say.
ALL_IS_KEPT = timedelta(days=7)


def of_job(job: Job, now: datetime) -> NotKept:
    """What is no longer kept of *job*; of its events, what there was since it was made."""
    if now - job.created_at < ALL_IS_KEPT:
        return NotKept()
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT coalesce(executions, 0), coalesce(evaluations, 0), ended_before,
                   CASE WHEN begins > %s THEN begins END
            FROM ({periods.BEGINS}) journal LEFT JOIN orchestrator_removedhistory ON job_id = %s
            """,  # noqa: S608 - our own words
            [job.created_at, job.pk],
        )
        return NotKept(*cursor.fetchone())
