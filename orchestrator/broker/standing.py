"""How single jobs stand in the queue, for people: which rows they have there, as one value."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from orchestrator.models import BlockedJob, BrokerRow, Job

from .blocked import Waits
from .enqueue import BY_PEOPLE
from .looking import MAY_BE_LEASED
from .statistics import QueueState


@dataclass(frozen=True, slots=True)
class Standing:
    """A job of the queue.

    ``since`` is since when it waits for what it waits for, ``until`` the moment at which its
    lease ends or it is looked at again.  ``deliveries`` count from the last success.
    """

    job: UUID
    state: QueueState
    type: str
    priority: int
    since: datetime
    until: datetime | None = None
    worker: str = ""
    deliveries: int = 0
    triggers: Mapping[str, int] = field(default_factory=dict)
    dead_letter: str | None = None
    waits: Waits | None = None


def standing(jobs: Collection[UUID]) -> dict[UUID, Standing]:
    """How these *jobs* stand, as far as they are in the queue; its cost does not follow theirs."""
    if not jobs:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(_STANDING, {"jobs": list(jobs), "by_people": list(BY_PEOPLE)})
        return {row[0]: _standing(*row) for row in cursor.fetchall()}


#: What jobs are selected with for `known`.
RELATED = ("broker_row", "blocked__blocked_class")


def known(job: Job) -> Standing | None:
    """How *job*, which was read with RELATED, stands, as far as it does not go on by itself."""
    row: BrokerRow | None = getattr(job, "broker_row", None)
    blocked: BlockedJob | None = getattr(job, "blocked", None)
    of_job: dict[str, Any] = {"job": job.pk, "type": job.type, "priority": job.priority}
    if row is not None and row.leased_until is not None:
        return None
    if row is not None and row.dead_letter is not None:
        return Standing(
            **of_job,
            state=QueueState.DEAD,
            since=row.since,
            deliveries=row.deliveries,
            dead_letter=row.dead_letter,
        )
    if blocked is None:
        return None
    kind = blocked.blocked_class
    waits = _waits(
        blocked.missing, blocked.waits_since, need=kind.need, where=kind.where, why=kind.why
    )
    since = blocked.waits_since or blocked.since
    return Standing(**of_job, state=QueueState.BLOCKED, since=since, waits=waits)


# What is asked of a job that is leased or backs off is no wait of its own.
_STANDING = f"""
    SELECT j.id,
           CASE WHEN r.leased_until IS NOT NULL THEN 'leased'
                WHEN asked.since IS NOT NULL THEN 'ready'
                WHEN r.dead_letter IS NOT NULL THEN 'dead'
                WHEN b.job_id IS NOT NULL THEN 'blocked'
                ELSE 'waiting' END,
           j.type, j.priority,
           CASE WHEN r.leased_until IS NULL AND asked.since IS NULL AND r.dead_letter IS NULL
                THEN coalesce(b.waits_since, b.since, r.since, d.at)
                ELSE coalesce(r.since, asked.since) END,
           coalesce(r.leased_until, r.retry_at, d.at), coalesce(r.worker, ''),
           coalesce(r.deliveries, 0), coalesce(r.triggers, asked.triggers)::text, r.dead_letter,
           b.missing, b.waits_since, c.need::text, c."where"::text, c.why::text
    FROM orchestrator_job j
    LEFT JOIN orchestrator_brokerrow r ON r.job_id = j.id
    LEFT JOIN orchestrator_brokerdue d ON d.job_id = j.id
    LEFT JOIN orchestrator_blockedjob b ON b.job_id = j.id
    LEFT JOIN orchestrator_blockedclass c ON c.digest = b.class
    LEFT JOIN LATERAL (
        SELECT min(since) AS since,
               jsonb_object_agg(trigger, n) FILTER (WHERE trigger <> '') AS triggers
        FROM (
            SELECT trigger, count(*) AS n, min(since) AS since FROM orchestrator_brokertrigger t
            WHERE t.job_id = j.id AND {MAY_BE_LEASED} GROUP BY trigger) each) asked ON true
    WHERE j.id = ANY (%(jobs)s)
      AND num_nonnulls(r.job_id, d.job_id, b.job_id, asked.since) > 0
"""  # noqa: S608 - our own columns


def _standing(
    job: UUID,
    state: str,
    kind: str,
    priority: int,
    since: datetime,
    until: datetime | None,
    worker: str,
    deliveries: int,
    triggers: str | None,
    dead_letter: str | None,
    missing: int | None,
    waits_since: datetime | None,
    *a_class: str,
) -> Standing:
    waits = None
    if missing is not None and None not in a_class:
        need, where, why = map(json.loads, a_class)
        waits = _waits(missing, waits_since, need=need, where=where, why=why)
    return Standing(
        job=job,
        state=QueueState(state),
        type=kind,
        priority=priority,
        since=since,
        until=until,
        worker=worker,
        deliveries=deliveries,
        triggers=json.loads(triggers or "{}"),
        dead_letter=dead_letter,
        waits=waits if state == QueueState.BLOCKED else None,
    )


def _waits(missing: int, since: datetime | None, **of_class: Any) -> Waits:
    return Waits.load({**of_class, "missing": missing, "since": since.isoformat() if since else ""})
