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

from .due import catch_up
from .looking import MAY_BE_LEASED, Place

log = logging.getLogger(__name__)

#: Seconds that a lease lasts, and that a sweep waits beyond its end.
LEASE, GRACE = 60.0, 2.0

#: Deliveries after which a job is parked.
MOST_DELIVERIES = 5

#: The longest error that is kept.
LONGEST_ERROR = 10_000


@dataclass(frozen=True, slots=True)
class Lease:
    """A job lent to ``worker`` for one evaluation, whose number is the fence."""

    job: UUID
    evaluation: int
    worker: str
    type: str = ""
    priority: int = 50
    delivery: int = 1
    waited_since: datetime | None = None
    triggers: Mapping[str, int] = field(default_factory=dict, compare=False)


#: Where this process looks for work.
_place = Place()


def lease(
    types: Sequence[str] | None, limit: int, worker: str, lease_seconds: float = LEASE
) -> list[Lease]:
    """Lend up to *limit* ready jobs of *types* (None: any) to *worker*, the most urgent first.

    Urgent is the higher priority; among equals the namespaces take turns, and in each comes first
    who has waited longer.  A job that failed before is lent alone, so that what it does to its
    worker happens to no other job.  Nothing is lent while scheduling is paused.
    """
    at, promoted = catch_up()
    for pair, since in promoted:
        _place.heed(pair, since)
    asked = {
        "types": None if types is None else list(types),
        "limit": limit,
        "worker": worker,
        "seconds": lease_seconds,
    }
    with connection.cursor() as cursor, _place.look() as look:
        cursor.execute(f"WITH RECURSIVE {look.pairs}, {_LEASE}", asked | look.parameters)
        rows = cursor.fetchall()
        if types is None:  # Of other types there may be older ones.
            if not rows:
                look.found_all(at)
            look.found((row[:2], row[2]) for row in rows)
        if rows:
            look.served = rows[-1][1]
    return [
        Lease(
            job=job,
            evaluation=evaluation,
            worker=worker,
            type=kind,
            priority=priority,
            delivery=delivery,
            waited_since=since,
            triggers=json.loads(triggers),
        )
        for _, _, _, job, evaluation, kind, priority, delivery, since, triggers, _ in rows
    ]


def heed(urgency: int, namespace: str, since: datetime) -> None:
    """Know of a trigger that may be older than what was found lately."""
    _place.heed((urgency, namespace), since)


def merged(one: str, other: str) -> str:
    """SQL for two jsonb objects of counts as one, the counts added."""
    return f"""
        (SELECT coalesce(jsonb_object_agg(word, n), '{{}}') FROM (
            SELECT word, sum(count::bigint) AS n FROM (
                SELECT * FROM jsonb_each_text({one}) AS a(word, count)
                UNION ALL SELECT * FROM jsonb_each_text({other}) AS b(word, count)) AS both_of_them
            GROUP BY word) AS sums)
    """  # noqa: S608 - our own columns


# All triggers of a job that can be seen are answered by its lease; what is asked later than that
# stays, and is answered by another one.  Two that choose the same job meet at its row: the second
# finds it leased, and leaves the triggers alone.  A dead letter that somebody asks for starts to
# count anew, and so does a back-off that a person ends.  MATERIALIZED is a fence: without it
# Postgres may lock more rows than it should.  The commit need not wait for the disk: should a
# crash lose it, the fence names the worker too.
_LEASE = f"""
    seen AS MATERIALIZED (
        SELECT found.*, p.urgency, p.namespace, p.turn,
               row_number() OVER (PARTITION BY p.urgency, p.namespace ORDER BY found.since)
                   AS place
        FROM first_pairs p CROSS JOIN LATERAL (
            SELECT t.job_id, t.since FROM orchestrator_brokertrigger t
            WHERE t.urgency = p.urgency AND t.namespace = p.namespace AND t.since >= p.since
              AND (%(types)s::text[] IS NULL OR t.type = ANY (%(types)s::text[]))
              AND {MAY_BE_LEASED}
            ORDER BY t.since LIMIT greatest(%(limit)s, 4 * %(limit)s / p.equals)
            FOR UPDATE SKIP LOCKED) AS found
        WHERE NOT EXISTS (SELECT FROM orchestrator_clustersetting WHERE scheduling_paused)),
    first AS MATERIALIZED (
        SELECT DISTINCT ON (job_id) * FROM seen ORDER BY job_id, urgency, place),
    jobs AS MATERIALIZED (
        SELECT * FROM first ORDER BY urgency, place, turn, job_id LIMIT %(limit)s),
    asked AS MATERIALIZED (
        SELECT t.ctid AS at, t.job_id, t.id, t.urgency, t.namespace, t.type, t.trigger, t.since
        FROM orchestrator_brokertrigger t
        WHERE t.job_id = ANY (ARRAY(SELECT job_id FROM jobs))
        LIMIT 10000
        FOR UPDATE SKIP LOCKED),
    counted AS (
        SELECT job_id, min(since) AS since,
               coalesce(jsonb_object_agg(trigger, n) FILTER (WHERE trigger <> ''), '{{}}')
                   AS triggers,
               bool_or(trigger = ANY (%(by_people)s::text[])) AS by_people,
               (array_agg(type ORDER BY last DESC))[1] AS type,
               (array_agg(-urgency ORDER BY last DESC))[1] AS priority
        FROM (SELECT job_id, trigger, type, urgency, count(*) AS n, min(since) AS since,
                     max(id) AS last
              FROM asked GROUP BY job_id, trigger, type, urgency) AS each_trigger
        GROUP BY job_id),
    ranked AS (
        SELECT c.*, j.urgency, j.namespace, row_number() OVER urgency AS place, d.deliveries,
               first_value(d.deliveries) OVER urgency AS first
        FROM counted c JOIN jobs j USING (job_id)
        LEFT JOIN LATERAL (
            SELECT deliveries, dead_letter FROM orchestrator_brokerrow WHERE job_id = c.job_id
            OFFSET 0) r ON true
        CROSS JOIN LATERAL (
            SELECT CASE WHEN c.by_people OR r.dead_letter IS NOT NULL THEN 0
                   ELSE coalesce(r.deliveries, 0) END AS deliveries) AS d
        WINDOW urgency AS (ORDER BY j.urgency, j.place, j.turn, job_id)),
    chosen AS MATERIALIZED (
        SELECT *, nextval(pg_get_serial_sequence('orchestrator_evaluation', 'id')) AS evaluation
        FROM ranked WHERE CASE WHEN first > 0 THEN place = 1 ELSE deliveries = 0 END),
    lent AS (
        INSERT INTO orchestrator_brokerrow AS r (job_id, type, priority, evaluation_id, worker,
            leased_at, leased_until, since, triggers, deliveries)
        SELECT job_id, type, priority, evaluation, %(worker)s, clock_timestamp(),
               clock_timestamp() + %(seconds)s * interval '1 second', since, triggers,
               deliveries + 1
        FROM chosen ORDER BY job_id
        ON CONFLICT (job_id) DO UPDATE SET
            type = excluded.type, priority = excluded.priority,
            evaluation_id = excluded.evaluation_id, worker = excluded.worker,
            leased_at = excluded.leased_at, leased_until = excluded.leased_until,
            since = least(r.since, excluded.since),
            triggers = {merged("r.triggers", "excluded.triggers")},
            deliveries = excluded.deliveries, retry_at = NULL, dead_letter = NULL
        WHERE r.leased_until IS NULL
        RETURNING job_id, evaluation_id, type, priority, deliveries, since, triggers),
    taken AS (
        DELETE FROM orchestrator_brokertrigger
        WHERE ctid = ANY (ARRAY(SELECT at FROM asked JOIN lent USING (job_id)))),
    undue AS (
        DELETE FROM orchestrator_brokerdue WHERE job_id = ANY (ARRAY(
            SELECT job_id FROM orchestrator_brokerdue
            WHERE job_id = ANY (ARRAY(SELECT job_id FROM lent)) FOR UPDATE SKIP LOCKED))),
    unblocked AS (
        DELETE FROM orchestrator_blockedjob WHERE job_id = ANY (ARRAY(
            SELECT job_id FROM orchestrator_blockedjob
            WHERE job_id = ANY (ARRAY(SELECT job_id FROM lent)) FOR UPDATE SKIP LOCKED)))
    SELECT c.urgency, c.namespace, c.since, job_id, evaluation_id, lent.type, lent.priority,
           lent.deliveries, lent.since, lent.triggers::text,
           set_config('synchronous_commit', 'off', true)
    FROM lent JOIN chosen c USING (job_id) ORDER BY c.place
"""  # noqa: S608 - our own columns


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
                WHERE leased_until IS NOT NULL AND (job_id, evaluation_id)
                    IN (SELECT * FROM unnest(%s::uuid[], %s::bigint[]))
                ORDER BY job_id FOR UPDATE SKIP LOCKED)
            UPDATE orchestrator_brokerrow r
            SET leased_until = clock_timestamp() + %s * interval '1 second'
            FROM held WHERE r.job_id = held.job_id
            """,
            [[one.job for one in ours], [one.evaluation for one in ours], lease_seconds],
        )


def hold(leases: Iterable[Lease]) -> set[Lease]:
    """Lock the broker rows of *leases*, in order, and say which leases are still good.

    The first lock of a plan's transaction.  It asks the fence, never the clock: an expired lease
    that nobody took over may still commit, one that was taken over cannot.
    """
    asked = {one.job: one for one in leases}
    columns = "job_id, evaluation_id, worker, leased_until IS NOT NULL"
    return {
        asked[job]
        for job, evaluation, worker, is_leased in lock_rows(Lock.QUEUE, asked, columns)
        if is_leased and (evaluation, worker) == (asked[job].evaluation, asked[job].worker)
    }


def nack(one: Lease, error: str) -> bool:
    """Give *one* back because evaluating it failed; whether it was still ours.

    It is tried again after a back-off, and parked with its *error* after MOST_DELIVERIES.
    """
    with transaction.atomic():
        released = _release(one.job, one.evaluation, error, at_once=False, wait=True)
        after_commit(Hint.VIEW)
    return released


def sweep() -> int:
    """Free leases that have expired, each by itself."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT job_id, evaluation_id FROM orchestrator_brokerrow"
            " WHERE leased_until < clock_timestamp() - %s * interval '1 second' LIMIT 1000",
            [GRACE],
        )
        expired = cursor.fetchall()
    return sum(_free(job, fence, "lease expired", grace=GRACE) for job, fence in expired)


def leaseholders() -> list[str]:
    """The workers that hold leases."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT worker FROM orchestrator_brokerrow WHERE leased_until IS NOT NULL"
        )
        return [worker for (worker,) in cursor.fetchall()]


def give_back(dead_owners: Iterable[str], error: str = "its worker died") -> int:
    """Free the leases of workers that are known to be dead; how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT job_id, evaluation_id FROM orchestrator_brokerrow"
            " WHERE leased_until IS NOT NULL AND worker = ANY (%s) ORDER BY job_id",
            [list(dead_owners)],
        )
        theirs = cursor.fetchall()
    return sum(_free(job, fence, error) for job, fence in theirs)


def _free(job: UUID, evaluation: int, error: str, *, grace: float | None = None) -> bool:
    try:
        with transaction.atomic():
            freed = _release(job, evaluation, error, at_once=True, wait=False, grace=grace)
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
    job: UUID, evaluation: int, error: str, *, at_once: bool, wait: bool, grace: float | None = None
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
                "evaluation": evaluation,
                "error": error.replace("\0", "")[:LONGEST_ERROR],
                "at_once": at_once,
                "most": MOST_DELIVERIES,
                "grace": grace,
            },
        )
        return cursor.fetchone() is not None


# The first retry of what merely lost its worker is at once.  A dead letter is retried once by
# itself: the delivery after the limit parks it for good.  Its reasons stay in its row, so the
# trigger has none of its own; what was asked while it was leased is there already.
_RELEASE = """
    WITH held AS MATERIALIZED (
        SELECT r.*, CASE
            WHEN deliveries = %(most)s
                THEN clock_timestamp() + (60 + 300 * random()) * interval '1 second'
            WHEN deliveries > %(most)s OR (%(at_once)s AND deliveries = 1) THEN NULL
            ELSE clock_timestamp() + (0.9 + 0.2 * random()) * interval '1 second'
                * CASE WHEN deliveries = 1 THEN 1 ELSE least(60, 5 * (deliveries - 1)) END
            END AS again_at
        FROM orchestrator_brokerrow r
        WHERE job_id = %(job)s AND evaluation_id = %(evaluation)s AND leased_until IS NOT NULL
          AND (%(grace)s::float8 IS NULL
               OR leased_until < clock_timestamp() - %(grace)s::float8 * interval '1 second')
        FOR UPDATE),
    history AS (
        INSERT INTO orchestrator_evaluation (id, job_id, type, priority, state, triggers, delivery,
            worker, waited_since, leased_at, finished_at, outcome, error)
        SELECT evaluation_id, job_id, type, priority, 'failed', triggers, deliveries,
               worker, since, leased_at, clock_timestamp(), '', %(error)s
        FROM held),
    at_once AS (
        INSERT INTO orchestrator_brokertrigger (job_id, urgency, namespace, type, trigger, since)
        SELECT job_id, -j.priority, namespace_id, j.type, '', clock_timestamp()
        FROM held JOIN orchestrator_job j ON j.id = held.job_id
        WHERE again_at IS NULL AND deliveries <= %(most)s),
    later AS (
        INSERT INTO orchestrator_brokerdue (job_id, at, trigger)
        SELECT job_id, again_at, '' FROM held WHERE again_at IS NOT NULL
        ON CONFLICT (job_id) DO UPDATE SET at = excluded.at, trigger = excluded.trigger)
    UPDATE orchestrator_brokerrow r SET leased_until = NULL, worker = '',
        retry_at = again_at,
        dead_letter = CASE WHEN r.deliveries >= %(most)s THEN %(error)s END
    FROM held WHERE r.job_id = held.job_id
    RETURNING r.job_id
"""


def forget_orphans() -> None:
    """Forget all about jobs that are gone, which deleting them by SQL leaves behind."""
    with connection.cursor() as cursor:
        for table in ("brokertrigger", "brokerdue", "blockedjob", "brokerrow"):
            cursor.execute(
                f"""
                DELETE FROM orchestrator_{table} WHERE ctid = ANY (ARRAY(
                    SELECT ctid FROM orchestrator_{table} t
                    WHERE (SELECT true FROM orchestrator_job j WHERE j.id = t.job_id) IS NULL
                    LIMIT 1000 FOR UPDATE SKIP LOCKED))
                """  # noqa: S608 - names of our own tables
            )
