"""Acknowledging: the good end of leases, inside the transaction that writes their plans."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import connection

from nodes.hints import Hint, after_commit
from nodes.models import NOTHING_SEEN
from orchestrator.explain.errors import LeaseLost
from orchestrator.lifecycle import Trigger
from orchestrator.scheduling.feasibility import Demand
from orchestrator.scheduling.plan import Blocked

from .blocked import Waits, least, may_block, room_since
from .leases import Lease, heed


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one lease.

    Not ``complete`` means that the plan was applied in part: the job is evaluated again at once.
    Of ``followups`` the earliest counts, as every evaluation finds all of them anew.
    ``blocked`` is what nothing had room for, ``demand`` what else its node must have, and
    ``revision`` that of the cluster that was looked at.
    """

    lease: Lease
    complete: bool = True
    outcome: str = ""
    followups: Sequence[tuple[datetime, Trigger]] = ()
    blocked: Blocked | None = None
    demand: Demand | None = None
    revision: str = NOTHING_SEEN
    record: Mapping[str, Any] | None = None


def ack(results: Iterable[Result]) -> None:
    """Close leases that the caller's transaction holds, with what came of each.

    Raises LeaseLost, and so undoes the caller's transaction, when one of them is not held.  A job
    that was asked about since its lease began is ready again, whatever the result says.
    """
    results = _recheck(list(results))
    if not results:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            _ACK,
            {
                "acks": json.dumps([_row(one) for one in results]),
                "classes": json.dumps(_classes(results)),
                "retry": Trigger.RETRY.value,
            },
        )
        closed = {job: waiting for job, *waiting in cursor.fetchall()}
    for one in results:
        if one.lease.job not in closed:
            raise LeaseLost(job=one.lease.job)
    again = [waiting for waiting in closed.values() if waiting[-1] is not None]
    for waiting in again:
        heed(*waiting)
    # Blocked jobs let the waker pass; a follow-up moves the next due time.
    if again or any(one.blocked or one.followups for one in results):
        after_commit(Hint.WORK)


def _recheck(results: list[Result]) -> list[Result]:
    """Do not block what a node that has changed meanwhile has room for: look again soon.

    Nor what cannot be blocked at the moment, because a stopped process holds the lock.
    """
    blocked = {
        one.lease.job: (Waits.of(one.blocked, one.demand), one.revision)
        for one in results
        if one.blocked and one.complete
    }
    if not blocked:
        return results
    again = {waits.digest for waits, _ in blocked.values()}
    if may_block():
        needed = least(waits.need for waits, _ in blocked.values())
        views = {revision for _, revision in blocked.values()}  # One, of a group.
        rooms = [room for view in views for room in room_since(view, needed)]
        classes = {waits.digest: waits for waits, _ in blocked.values()}
        again = {name for name, it in classes.items() if any(map(it.held_by, rooms))}
    return [
        replace(one, complete=False)
        if one.lease.job in blocked and blocked[one.lease.job][0].digest in again
        else one
        for one in results
    ]


def _row(one: Result) -> dict[str, Any]:
    waits = Waits.of(one.blocked, one.demand) if one.blocked else None
    at, trigger = min(one.followups, default=(None, ""))
    return {
        "job": str(one.lease.job),
        "worker": one.lease.worker,
        "evaluation": one.lease.evaluation,
        "complete": one.complete,
        "at": at and at.isoformat(),
        "trigger": str(trigger),
        "class": waits and waits.digest,
        "missing": waits and waits.missing,
        "waits_since": waits and (waits.since or None),
        "outcome": one.outcome.replace("\0", ""),
        "record": one.record,
    }


def _classes(results: Iterable[Result]) -> list[dict[str, Any]]:
    found = [Waits.of(one.blocked, one.demand) for one in results if one.blocked and one.complete]
    classes = {waits.digest: {"digest": waits.digest, **waits.dump()} for waits in found}
    return [classes[digest] for digest in sorted(classes)]


# What was asked since the lease began can be seen, or comes later than this: it is there already.
# What was applied in part is looked at again as if it had waited since then.
# A job that is blocked although a changed node has room looks again a moment later, not at once:
# the room may be of a node that it avoids.  A follow-up that is already due comes a moment later,
# too, so that no mistake of a scheduler makes a hot loop.  What is blocked has no moment of its own
# but a follow-up's: trying each again every minute cost more than all else that a cluster did.
# What somebody else holds of a job, a waker, goes with what he does.  A class that others have
# used lately is not waited for: who holds it may be stopped, and says the same.  An older one is,
# so that nobody forgets it meanwhile.
# With OFFSET each is looked up by its job: few jobs are leased, but while nothing can be vacuumed
# the table is all that were.  They are held, so that they stay where they are.
_ACK = """
    WITH acks AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(%(acks)s::jsonb) AS a(
            job uuid, worker text, evaluation bigint, complete boolean, at timestamptz,
            trigger text, class text, missing int, waits_since timestamptz, outcome text,
            record jsonb)),
    held AS MATERIALIZED (
        SELECT r.ctid AS place, r.*, a.class, a.missing, a.waits_since, a.outcome, a.record,
               a.trigger,
               asked.urgency, asked.namespace, asked.since AS asked_since,
               a.complete AND asked.since IS NULL AS settles,
               NOT a.complete AND asked.since IS NULL AND a.class IS NULL AS again,
               CASE WHEN asked.since IS NOT NULL THEN NULL
                    WHEN NOT a.complete AND a.class IS NOT NULL
                        THEN clock_timestamp() + interval '250 milliseconds'
                    WHEN a.complete AND a.at IS NOT NULL
                        THEN greatest(a.at, clock_timestamp() + interval '20 milliseconds')
                    END AS due
        FROM acks a CROSS JOIN LATERAL (
            SELECT ctid, * FROM orchestrator_brokerrow
            WHERE job_id = a.job AND evaluation_id = a.evaluation AND worker = a.worker
              AND leased_until IS NOT NULL
            OFFSET 0) r
        LEFT JOIN LATERAL (
            SELECT t.urgency, t.namespace, t.since FROM orchestrator_brokertrigger t
            WHERE t.job_id = a.job LIMIT 1) asked ON true),
    released AS (
        DELETE FROM orchestrator_brokerrow WHERE ctid = ANY (ARRAY(SELECT place FROM held))),
    history AS (
        INSERT INTO orchestrator_evaluation (id, job_id, type, priority, state, triggers, delivery,
            worker, waited_since, leased_at, finished_at, outcome, record, error)
        SELECT evaluation_id, job_id, type, priority, 'complete', triggers, deliveries,
               worker, since, leased_at, clock_timestamp(), outcome, record, ''
        FROM held),
    again AS (
        INSERT INTO orchestrator_brokertrigger (job_id, urgency, namespace, type, trigger, since)
        SELECT job_id, -j.priority, namespace_id, j.type, %(retry)s, since
        FROM held JOIN orchestrator_job j ON j.id = held.job_id WHERE again
        RETURNING job_id, urgency, namespace, since),
    due AS (
        INSERT INTO orchestrator_brokerdue (job_id, at, trigger)
        SELECT job_id, due, coalesce(nullif(trigger, ''), %(retry)s) FROM held
        WHERE due IS NOT NULL ORDER BY job_id
        ON CONFLICT (job_id) DO UPDATE SET at = excluded.at, trigger = excluded.trigger),
    classes AS MATERIALIZED (
        SELECT digest, need, "where", why, impossible
        FROM jsonb_to_recordset(%(classes)s::jsonb) AS a(
            digest text, need jsonb, "where" jsonb, why jsonb, impossible boolean)
        WHERE EXISTS (SELECT FROM held h WHERE h.settles AND h.class = a.digest)),
    outdated AS MATERIALIZED (
        SELECT digest FROM orchestrator_blockedclass c JOIN classes a USING (digest)
        WHERE c.seen_at >= clock_timestamp() - interval '30 minutes'
          AND (c.why <> a.why OR c.impossible <> a.impossible
               OR c.seen_at < clock_timestamp() - interval '10 minutes')
        ORDER BY digest FOR UPDATE OF c SKIP LOCKED),
    said AS (
        UPDATE orchestrator_blockedclass c SET why = a.why, impossible = a.impossible,
            seen_at = clock_timestamp()
        FROM classes a WHERE c.digest = a.digest AND c.digest IN (SELECT digest FROM outdated)),
    made AS (
        INSERT INTO orchestrator_blockedclass (digest, need, "where", why, impossible)
        SELECT * FROM classes a WHERE NOT EXISTS (
            SELECT FROM orchestrator_blockedclass c WHERE c.digest = a.digest
            AND c.seen_at >= clock_timestamp() - interval '30 minutes')
        ORDER BY digest
        ON CONFLICT (digest) DO UPDATE SET why = excluded.why, impossible = excluded.impossible,
            seen_at = clock_timestamp()),
    blocked AS (
        INSERT INTO orchestrator_blockedjob
            (job_id, class, urgency, since, waits_since, missing)
        SELECT job_id, class, -priority, clock_timestamp(), waits_since, missing
        FROM held WHERE settles AND class IS NOT NULL ORDER BY job_id
        ON CONFLICT (job_id) DO UPDATE SET class = excluded.class, urgency = excluded.urgency,
            since = excluded.since, waits_since = excluded.waits_since,
            missing = excluded.missing)
    SELECT held.job_id, coalesce(held.urgency, again.urgency),
           coalesce(held.namespace, again.namespace), coalesce(asked_since, again.since)
    FROM held LEFT JOIN again USING (job_id)
"""
