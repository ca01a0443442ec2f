"""Leases: the exclusive loan of a job to a worker, and its bad ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db import Error, connection, transaction

from nodes.hints import Hint, after_commit
from nodes.locks import Lock, lock_rows

from .fold import fold, merged

log = logging.getLogger(__name__)

#: Seconds that a lease lasts, and that a sweep waits beyond its end.
LEASE, GRACE = 60.0, 2.0

#: Deliveries after which a job is parked.
MOST_DELIVERIES = 5

#: The longest error that is kept.
LONGEST_ERROR = 10_000


@dataclass(frozen=True, slots=True)
class Lease:
    """A job lent to ``worker`` for one evaluation.  ``token`` is the fence."""

    job: UUID
    evaluation: int
    token: int
    worker: str
    type: str = ""
    priority: int = 50
    delivery: int = 1
    leased_want: int = 0
    waited_since: datetime | None = None
    triggers: Mapping[str, int] = field(default_factory=dict, compare=False)


def lease(
    types: Sequence[str] | None, limit: int, worker: str, lease_seconds: float = LEASE
) -> list[Lease]:
    """Lend up to *limit* ready jobs of *types* (None: any) to *worker*, the most urgent first.

    Urgent is the higher priority, then who has waited longer.  A job that failed before is lent
    alone, so that what it does to its worker happens to no other job.  Nothing is lent while
    scheduling is paused.
    """
    fold()
    with connection.cursor() as cursor:
        cursor.execute(
            _LEASE,
            {
                "types": None if types is None else list(types),
                "limit": limit,
                "worker": worker,
                "seconds": lease_seconds,
            },
        )
        return [
            Lease(
                job=job,
                evaluation=evaluation,
                token=token,
                worker=worker,
                type=kind,
                priority=priority,
                delivery=delivery,
                leased_want=want,
                waited_since=since,
                triggers=json.loads(triggers),
            )
            for job, evaluation, token, kind, priority, delivery, want, since, triggers, _ in (
                cursor.fetchall()
            )
        ]


# MATERIALIZED is a fence: without it Postgres may lock and update more rows than LIMIT.  The
# commit need not wait for the disk: should a crash lose it, the fence names the worker too.
_LEASE = """
    WITH next AS MATERIALIZED (
        SELECT job_id, type, priority, want, token, triggers, ready_since, deliveries,
               evaluation_id
        FROM orchestrator_brokerrow
        WHERE want > done AND leased_want IS NULL AND dead_letter IS NULL
          AND blocked_on IS NULL AND not_before IS NULL
          AND (%(types)s::text[] IS NULL OR type = ANY (%(types)s::text[]))
          AND NOT EXISTS (SELECT FROM orchestrator_clustersetting WHERE scheduling_paused)
        ORDER BY priority DESC, ready_since, job_id LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED),
    ranked AS (
        SELECT *, row_number() OVER urgency AS place, first_value(deliveries) OVER urgency AS first
        FROM next WINDOW urgency AS (ORDER BY priority DESC, ready_since, job_id)),
    chosen AS MATERIALIZED (
        SELECT *, nextval(pg_get_serial_sequence('orchestrator_evaluation', 'id')) AS evaluation
        FROM ranked WHERE CASE WHEN first > 0 THEN place = 1 ELSE deliveries = 0 END),
    lent AS (
        UPDATE orchestrator_brokerrow r SET leased_want = r.want, token = r.token + 1,
            leased_until = clock_timestamp() + %(seconds)s * interval '1 second',
            worker = %(worker)s, deliveries = r.deliveries + 1, triggers = '{}',
            evaluation_id = c.evaluation
        FROM chosen c WHERE r.job_id = c.job_id),
    over AS (
        UPDATE orchestrator_evaluation e SET state = 'complete' FROM chosen c
        WHERE e.id = c.evaluation_id AND e.state IN ('waiting', 'blocked')),
    history AS (
        INSERT INTO orchestrator_evaluation (id, job_id, type, priority, state, triggers, token,
            delivery, worker, waited_since, leased_at, outcome, error)
        SELECT evaluation, job_id, type, priority, 'leased', triggers, token + 1,
            deliveries + 1, %(worker)s, ready_since, clock_timestamp(), '', ''
        FROM chosen)
    SELECT job_id, evaluation, token + 1, type, priority, deliveries + 1, want, ready_since,
           triggers::text, set_config('synchronous_commit', 'off', true)
    FROM chosen ORDER BY place
"""


def renew(leases: Iterable[Lease], lease_seconds: float = LEASE) -> None:
    """Have *leases* last from now again, where they are still ours.

    One whose row somebody holds at the moment is passed over: its plan is being committed.
    """
    ours = list(leases)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """
            WITH held AS MATERIALIZED (
                SELECT job_id FROM orchestrator_brokerrow
                WHERE leased_want IS NOT NULL
                  AND (job_id, token) IN (SELECT * FROM unnest(%s::uuid[], %s::bigint[]))
                ORDER BY job_id FOR UPDATE SKIP LOCKED)
            UPDATE orchestrator_brokerrow r
            SET leased_until = clock_timestamp() + %s * interval '1 second'
            FROM held WHERE r.job_id = held.job_id
            """,
            [[one.job for one in ours], [one.token for one in ours], lease_seconds],
        )


def hold(leases: Iterable[Lease]) -> set[Lease]:
    """Lock the broker rows of *leases*, in order, and say which leases are still good.

    The first lock of a plan's transaction.  It asks the token, never the clock: an expired lease
    that nobody took over may still commit, one that was taken over cannot.
    """
    asked = {one.job: one for one in leases}
    columns = "job_id, token, worker, leased_want IS NOT NULL"
    return {
        asked[job]
        for job, token, worker, is_leased in lock_rows(Lock.QUEUE, asked, columns)
        if is_leased and (token, worker) == (asked[job].token, asked[job].worker)
    }


def nack(one: Lease, error: str) -> bool:
    """Give *one* back because evaluating it failed; whether it was still ours.

    It is tried again after a back-off, and parked with its *error* after MOST_DELIVERIES.
    """
    with transaction.atomic():
        released = _release(one.job, one.token, error, at_once=False, wait=True)
        after_commit(Hint.VIEW)
    return released


def sweep() -> int:
    """Free leases that have expired, each by itself, and forget triggers of jobs that are gone."""
    _forget_orphans()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT job_id, token FROM orchestrator_brokerrow WHERE leased_want IS NOT NULL"
            " AND leased_until < clock_timestamp() - %s * interval '1 second' LIMIT 1000",
            [GRACE],
        )
        expired = cursor.fetchall()
    return sum(_free(job, token, "lease expired", grace=GRACE) for job, token in expired)


def leaseholders() -> list[str]:
    """The workers that hold leases."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT worker FROM orchestrator_brokerrow WHERE leased_want IS NOT NULL"
        )
        return [worker for (worker,) in cursor.fetchall()]


def give_back(dead_owners: Iterable[str], error: str = "its worker died") -> int:
    """Free the leases of workers that are known to be dead; how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT job_id, token FROM orchestrator_brokerrow"
            " WHERE leased_want IS NOT NULL AND worker = ANY (%s) ORDER BY job_id",
            [list(dead_owners)],
        )
        theirs = cursor.fetchall()
    return sum(_free(job, token, error) for job, token in theirs)


def _free(job: UUID, token: int, error: str, *, grace: float | None = None) -> bool:
    try:
        with transaction.atomic():
            freed = _release(job, token, error, at_once=True, wait=False, grace=grace)
            after_commit(Hint.WORK)
            after_commit(Hint.VIEW)
            return freed
    except Error:
        if not connection.is_usable():
            raise
        # One row that cannot be freed must not keep the others.
        log.exception("the lease of job %s could not be freed", job)
        return False


def _release(
    job: UUID, token: int, error: str, *, at_once: bool, wait: bool, grace: float | None = None
) -> bool:
    """End a lease, with *grace* only one that has been over for so many seconds; whether it did.

    An expired lease may be renewed between the look that found it and this.
    """
    release = _RELEASE if wait else _RELEASE.replace("FOR UPDATE", "FOR UPDATE SKIP LOCKED")
    with connection.cursor() as cursor:
        cursor.execute(
            release,
            {
                "job": job,
                "token": token,
                "error": error.replace("\0", "")[:LONGEST_ERROR],
                "at_once": at_once,
                "most": MOST_DELIVERIES,
                "grace": grace,
            },
        )
        return cursor.fetchone() is not None


# The first retry of what merely lost its worker is at once.  A dead letter is retried once by
# itself: the delivery after the limit parks it for good.
_RELEASE = f"""
    WITH held AS MATERIALIZED (
        SELECT job_id, evaluation_id FROM orchestrator_brokerrow
        WHERE job_id = %(job)s AND token = %(token)s AND leased_want IS NOT NULL
          AND (%(grace)s::float8 IS NULL
               OR leased_until < clock_timestamp() - %(grace)s::float8 * interval '1 second')
        FOR UPDATE),
    history AS (
        UPDATE orchestrator_evaluation e
        SET state = 'failed', error = %(error)s, finished_at = clock_timestamp()
        FROM held WHERE e.id = held.evaluation_id AND e.state = 'leased'
        RETURNING e.triggers)
    UPDATE orchestrator_brokerrow r SET
        leased_want = NULL, leased_until = NULL, worker = '',
        triggers = {merged("r.triggers", "(SELECT h.triggers FROM history h)")},
        dead_letter = CASE WHEN r.deliveries >= %(most)s THEN %(error)s END,
        not_before = CASE
            WHEN r.deliveries = %(most)s
                THEN clock_timestamp() + (60 + 300 * random()) * interval '1 second'
            WHEN r.deliveries > %(most)s OR (%(at_once)s AND r.deliveries = 1) THEN NULL
            ELSE clock_timestamp() + (0.9 + 0.2 * random()) * interval '1 second'
                * CASE WHEN r.deliveries = 1 THEN 1 ELSE least(60, 5 * (r.deliveries - 1)) END
            END
    FROM held WHERE r.job_id = held.job_id
    RETURNING r.job_id
"""  # noqa: S608 - our own columns


def _forget_orphans() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH orphans AS MATERIALIZED (
                SELECT id FROM orchestrator_brokertrigger t
                WHERE node_id IS NULL AND not_before <= (SELECT clock_timestamp())
                  AND NOT EXISTS (SELECT FROM orchestrator_job j WHERE j.id = t.job_id)
                ORDER BY not_before, id LIMIT 1000
                FOR UPDATE SKIP LOCKED)
            DELETE FROM orchestrator_brokertrigger t USING orphans WHERE t.id = orphans.id
            """
        )
