"""Retention: what is over is kept for so long, and then goes.  Nothing that lives is touched.

A job goes with all that belongs to it once it has ended so long ago, holds no room and is asked
about by nobody.  Of a job that goes on, executions and evaluations that ended so long ago go by
themselves, but for the newest of each slot and the newest evaluation; decisions read none of
them, as what they mean is in the job's progress.  The journal goes by whole weeks.

All of it is done in small transactions that wait for nobody, a bounded time at once.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from psycopg.errors import LockNotAvailable

from orchestrator.lifecycle import ENDED, JobType
from orchestrator.models import periods

log = logging.getLogger(__name__)

#: Seconds of work in one chore, and of rest after everything has been looked at.
AT_ONCE, REST = 0.5, 3600.0

#: Rows looked at by one statement, and deleted by one transaction; jobs deleted by one.
LOOKED_AT, ROWS, JOBS = 5000, 1000, 200

#: Where whoever asks about a job, or is just evaluating it, has a row.
QUEUE = (
    "orchestrator_brokerrow",
    "orchestrator_brokertrigger",
    "orchestrator_brokerdue",
    "orchestrator_blockedjob",
)


@dataclass(frozen=True, slots=True)
class Kept:
    """For how long: the journal, and the jobs of each type; None is for ever."""

    journal: timedelta | None
    jobs: Mapping[JobType, timedelta | None]

    @classmethod
    def for_days(cls, journal: int, jobs: Mapping[JobType, int]) -> Kept:
        """So many days each; 0 is for ever."""
        return cls(
            timedelta(days=journal) or None,
            {kind: timedelta(days=days) or None for kind, days in jobs.items()},
        )


class Retention:
    """The chores of one process, which remembers how far it has got.

    Another one begins anew; two at once pass over what the other has locked.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._steps: Iterator[None] | None = None
        self._rests_until = float("-inf")

    def turn_weeks(self) -> None:
        """Make the weeks of the journal that come, and drop those that are over."""
        try:
            for name in periods.open_weeks():
                log.info("the journal has a new week: %s", name)
            if self._kept.journal is not None:
                for name in periods.drop_weeks(_now() - self._kept.journal):
                    log.info("a week of the journal is no longer kept: %s", name)
        except Exception as error:
            if not isinstance(error.__cause__, LockNotAvailable):
                raise
            log.info("the journal's weeks are turned later: somebody reads it")

    def delete_some(self) -> None:
        """Go on deleting what is over, for a moment; at the end rest for a while."""
        began = time.monotonic()
        if began < self._rests_until:
            return
        if self._steps is None:
            self._steps = delete_all(self._kept, _now())
        while time.monotonic() - began < AT_ONCE:
            if next(self._steps, self) is self:
                self._steps = None
                self._rests_until = time.monotonic() + REST
                return


def delete_all(kept: Kept, now: datetime) -> Iterator[None]:
    """Delete what was over at *now* for longer than it is *kept*; yields after each transaction."""
    before = {kind: now - age for kind, age in kept.jobs.items() if age is not None}
    if not before:
        return
    yield from _jobs(before)
    yield from _executions(before)
    yield from _evaluations(before)


def _now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
    found: datetime = now
    return found


Before = Mapping[JobType, datetime]
"""By the type of a job: what ended earlier is not kept."""

_OVER = "(%(before)s::jsonb ->> j.type)::timestamptz"


def _arguments(before: Before, **others: Any) -> dict[str, Any]:
    return {
        "before": json.dumps({kind: at.isoformat() for kind, at in before.items()}),
        "newest": max(before.values()),
        "ended": [str(state) for state in ENDED],
        **others,
    }


# --- jobs ----------------------------------------------------------------------------------------

_IS_OVER = f"""
    j.state = ANY(%(ended)s) AND j.ended_at < {_OVER}
    AND NOT EXISTS (SELECT FROM orchestrator_liveexecution WHERE job_id = j.id)
    {" ".join(f"AND NOT EXISTS (SELECT FROM {table} WHERE job_id = j.id)" for table in QUEUE)}
"""  # noqa: S608 - only our own columns


def _jobs(before: Before) -> Iterator[None]:
    """Whoever ended long ago was made still earlier: so no index looks at ends."""
    for found in _oldest("orchestrator_job j", _IS_OVER, before):
        yield
        for at in range(0, len(found), JOBS):
            while _delete_jobs(found[at : at + JOBS], before):
                yield
            yield


def _oldest(table: str, condition: str, before: Before) -> Iterator[list[UUID]]:
    """Of so many rows at a time, from the oldest on, those that the *condition* holds of."""
    at, last, number = "-infinity", None, LOOKED_AT
    while number == LOOKED_AT:
        with connection.cursor() as cursor:
            cursor.execute(
                f"""
                SELECT id, created_at::text, {condition} FROM {table}
                WHERE created_at < %(newest)s AND created_at >= %(at)s::timestamptz
                  AND (created_at > %(at)s::timestamptz OR id < %(last)s::uuid)
                ORDER BY created_at, id DESC LIMIT %(looked_at)s
                """,  # noqa: S608 - only our own columns
                _arguments(before, at=at, last=last, looked_at=LOOKED_AT),
            )
            rows = cursor.fetchall()
        number = len(rows)
        if rows:
            last, at, _ = rows[-1]
        yield [key for key, _, is_over in rows if is_over]


def _delete_jobs(jobs: Sequence[UUID], before: Before) -> bool:
    """Delete these jobs, or some of what belongs to them; whether there is more to delete."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT id FROM orchestrator_job j WHERE id = ANY(%(jobs)s) AND {_IS_OVER}
            ORDER BY id FOR UPDATE SKIP LOCKED
            """,  # noqa: S608 - only our own columns
            _arguments(before, jobs=list(jobs)),
        )
        over = [key for (key,) in cursor.fetchall()]
        if not over:
            return False
        cursor.execute(
            "SELECT id FROM orchestrator_execution WHERE job_id = ANY(%s) LIMIT %s"
            " FOR UPDATE SKIP LOCKED",
            [over, ROWS],
        )
        deleted = _delete_executions([key for (key,) in cursor.fetchall()])
        for table in ("orchestrator_evaluation", "orchestrator_slotstate"):
            cursor.execute(
                f"DELETE FROM {table} WHERE ctid IN (SELECT ctid FROM {table}"  # noqa: S608
                " WHERE job_id = ANY(%s) LIMIT %s)",
                [over, ROWS],
            )
            deleted = max(deleted, cursor.rowcount)
        if deleted == ROWS:
            return True
        # What somebody locks just now goes, with its job, the next time.
        cursor.execute(
            """
            SELECT job FROM unnest(%s::uuid[]) AS job
            WHERE NOT EXISTS (SELECT FROM orchestrator_execution WHERE job_id = job)
              AND NOT EXISTS (SELECT FROM orchestrator_evaluation WHERE job_id = job)
            """,
            [over],
        )
        empty = [key for (key,) in cursor.fetchall()]
        for table, column in (
            ("orchestrator_removedhistory", "job_id"),
            ("orchestrator_jobversion", "job_id"),
            ("orchestrator_job", "id"),
        ):
            cursor.execute(f"DELETE FROM {table} WHERE {column} = ANY(%s)", [empty])  # noqa: S608
    return False


# --- of jobs that go on --------------------------------------------------------------------------

_EXECUTION_IS_OVER = f"""
    settled AND NOT reserved AND EXISTS (
        SELECT FROM orchestrator_job j WHERE j.id = e.job_id
        AND j.state <> ALL(%(ended)s) AND e.ended_at < {_OVER})
"""


def _executions(before: Before) -> Iterator[None]:
    for found in _oldest("orchestrator_execution e", _EXECUTION_IS_OVER, before):
        yield
        followed = _followed(found)
        for at in range(0, len(followed), ROWS):
            _delete_some_executions(followed[at : at + ROWS], before)
            yield


def _followed(executions: Sequence[UUID]) -> list[UUID]:
    """Those that are not the newest of their slots."""
    if not executions:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT id FROM unnest(%(ids)s::uuid[]) AS id EXCEPT
            SELECT * FROM (
                SELECT DISTINCT ON (job_id, slot) id FROM orchestrator_execution
                WHERE job_id IN (SELECT job_id FROM orchestrator_execution WHERE id = ANY(%(ids)s))
                ORDER BY job_id, slot, created_at DESC, id) newest
            """,
            {"ids": list(executions)},
        )
        return [key for (key,) in cursor.fetchall()]


def _delete_some_executions(executions: Sequence[UUID], before: Before) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT id, job_id FROM orchestrator_execution e
            WHERE id = ANY(%(executions)s) AND {_EXECUTION_IS_OVER} FOR UPDATE SKIP LOCKED
            """,  # noqa: S608 - only our own columns
            _arguments(before, executions=list(executions)),
        )
        over = cursor.fetchall()
        _remember([job for _, job in over], "executions", before)
        _delete_executions([key for key, _ in over])


def _evaluations(before: Before) -> Iterator[None]:
    last, number = 0, LOOKED_AT
    while number == LOOKED_AT:
        with connection.cursor() as cursor:
            cursor.execute(
                f"""
                SELECT e.id, e.leased_at < %(newest)s,
                       e.finished_at < {_OVER} AND j.state <> ALL(%(ended)s)
                       AND EXISTS (SELECT FROM orchestrator_evaluation n
                                   WHERE n.job_id = e.job_id AND n.id > e.id)
                FROM orchestrator_evaluation e JOIN orchestrator_job j ON j.id = e.job_id
                WHERE e.id > %(last)s ORDER BY e.id LIMIT %(looked_at)s
                """,  # noqa: S608 - only our own columns
                _arguments(before, last=last, looked_at=LOOKED_AT),
            )
            rows = cursor.fetchall()
        yield
        over = [key for key, _, is_over in rows if is_over]
        for at in range(0, len(over), ROWS):
            _delete_evaluations(over[at : at + ROWS], before)
            yield
        number = len(rows)
        if rows:
            last, is_old, _ = rows[-1]
            number = number if is_old else 0


def _delete_evaluations(evaluations: Sequence[int], before: Before) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """
            DELETE FROM orchestrator_evaluation WHERE id IN (
                SELECT id FROM orchestrator_evaluation WHERE id = ANY(%s) FOR UPDATE SKIP LOCKED)
            RETURNING job_id
            """,
            [list(evaluations)],
        )
        _remember([job for (job,) in cursor.fetchall()], "evaluations", before)


def _remember(jobs: Sequence[UUID], what: str, before: Before) -> None:
    """Count for each of these jobs, which may be named often, that one more is gone."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO orchestrator_removedhistory AS r (job_id, {what}, ended_before)
            SELECT j.id, count(*), {_OVER}
            FROM unnest(%(jobs)s::uuid[]) AS job JOIN orchestrator_job j ON j.id = job
            GROUP BY j.id ORDER BY j.id
            ON CONFLICT (job_id) DO UPDATE SET
                {what} = r.{what} + excluded.{what},
                ended_before = greatest(r.ended_before, excluded.ended_before)
            """,  # noqa: S608 - only our own columns
            _arguments(before, jobs=list(jobs)),
        )


# --- both ----------------------------------------------------------------------------------------


def _delete_executions(executions: Sequence[UUID]) -> int:
    """Delete executions that the caller has locked, with their output and history; how many."""
    if not executions:
        return 0
    with connection.cursor() as cursor:
        for statement in (
            "DELETE FROM orchestrator_executionoutput WHERE execution_id = ANY(%s)",
            "DELETE FROM orchestrator_execution WHERE id = ANY(%s)",
            "SELECT orchestrator_forget_history(%s)",  # It forgets none of those that are there.
        ):
            cursor.execute(statement, [list(executions)])
    return len(executions)
