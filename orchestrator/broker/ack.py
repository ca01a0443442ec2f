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
from .leases import Lease


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one lease.

    Not ``complete`` means that the plan was applied in part: the job is evaluated again at once.
    Of ``followups`` the earliest counts, as every evaluation finds all of them anew.
    ``blocked`` is what nothing had room for, ``demand`` what else its node must have, and
    ``revision`` that of the cluster that was looked at.  ``ended`` says that the job wants nothing
    more, so its row goes away until somebody asks again.
    """

    lease: Lease
    complete: bool = True
    outcome: str = ""
    followups: Sequence[tuple[datetime, Trigger]] = ()
    blocked: Blocked | None = None
    demand: Demand | None = None
    revision: str = NOTHING_SEEN
    ended: bool = False
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
        cursor.execute(_ACK, {"acks": json.dumps([_row(one) for one in results])})
        closed = dict(cursor.fetchall())
    for one in results:
        if one.lease.job not in closed:
            raise LeaseLost(job=one.lease.job)
    # Blocked jobs let the waker pass; a follow-up moves the next due time.
    if any(closed.values()) or any(one.blocked or one.followups for one in results):
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
        "token": one.lease.token,
        "worker": one.lease.worker,
        "evaluation": one.lease.evaluation,
        "complete": one.complete,
        "ended": one.ended,
        "at": at and at.isoformat(),
        "trigger": str(trigger),
        "blocked": waits and waits.dump(),
        "class": waits.digest if waits else "",
        "outcome": one.outcome.replace("\0", ""),
        "record": one.record,
    }


# What was applied in part is owed an evaluation for as long as before.
# A job that is blocked although a changed node has room looks again a moment later, not at once:
# the room may be of a node that it avoids.  A follow-up that is already due comes a moment later,
# too, so that no mistake of a scheduler makes a hot loop.  What is blocked has no moment of its own
# but a follow-up's: trying each again every minute cost more than all else that a cluster did.
_ACK = """
    WITH acks AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(%(acks)s::jsonb) AS a(
            job uuid, token bigint, worker text, evaluation bigint, complete boolean,
            ended boolean, at timestamptz, trigger text, blocked jsonb, class text,
            outcome text, record jsonb)),
    held AS MATERIALIZED (
        SELECT a.*, r.want > r.leased_want AS asked,
               a.complete AND r.want = r.leased_want AS settles,
               CASE WHEN a.at IS NOT NULL
                    THEN greatest(a.at, clock_timestamp() + interval '20 milliseconds') END AS due
        FROM acks a JOIN orchestrator_brokerrow r
          ON r.job_id = a.job AND r.token = a.token AND r.worker = a.worker
        WHERE r.leased_want IS NOT NULL),
    gone AS (
        DELETE FROM orchestrator_brokerrow r USING held h
        WHERE r.job_id = h.job AND h.settles AND h.ended),
    closed AS (
        UPDATE orchestrator_brokerrow r SET
            done = CASE WHEN h.complete THEN r.leased_want ELSE r.done END,
            leased_want = NULL, leased_until = NULL, worker = '', deliveries = 0,
            ready_since = CASE WHEN h.asked OR NOT h.complete THEN r.ready_since
                          ELSE clock_timestamp() END,
            blocked_on = CASE WHEN h.settles THEN h.blocked END,
            blocked_class = CASE WHEN h.settles THEN h.class ELSE '' END,
            not_before = CASE
                WHEN h.settles THEN h.due
                WHEN h.blocked IS NOT NULL AND NOT h.asked
                    THEN clock_timestamp() + interval '250 milliseconds'
                END,
            not_before_trigger = coalesce(nullif(h.trigger, ''), 'retry')
        FROM held h
        WHERE r.job_id = h.job AND NOT (h.settles AND h.ended)),
    history AS (
        UPDATE orchestrator_evaluation e SET
            state = CASE WHEN NOT h.settles OR h.ended THEN 'complete'
                         WHEN h.blocked IS NOT NULL THEN 'blocked'
                         WHEN h.due IS NOT NULL THEN 'waiting'
                         ELSE 'complete' END,
            finished_at = clock_timestamp(), outcome = h.outcome, record = h.record
        FROM held h WHERE e.id = h.evaluation)
    SELECT job, NOT settles FROM held
"""
