"""What there is to do, and time asking: what is due becomes a trigger as any other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from .looking import Look, Pair, Place
from .unblock import unblock

#: Jobs whose moment has come that one statement takes.
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Work:
    """Whether jobs are ready, whether nodes were freed, and in how many seconds the next is due.

    ``waited`` is how many seconds the most patient job has waited that is ready or due.
    """

    paused: bool
    ready: bool
    freed: bool
    due_in: float | None
    waited: float = 0.0


_place = Place()


def work(place: Place = _place, database: BaseDatabaseWrapper | None = None) -> Work:
    """What there is to do for those who lease, as far as it is found from *place* on.

    It is asked over *database* where another connection than this thread's is meant.
    """
    with (database or connection).cursor() as cursor, place.look() as look:
        at, paused, freed, due_in = _look(cursor, look)
        cursor.execute(f"WITH RECURSIVE {look.pairs} {_READY}", look.parameters)
        ready = cursor.fetchall()
        look.found_all(at)
        look.found((row[:2], row[2]) for row in ready)
    waits = [float(waited) for *_, waited in ready]
    waited = max([0.0, *waits, *([] if due_in is None else [-due_in])])
    return Work(paused, bool(ready), freed, due_in, waited)


def catch_up() -> tuple[datetime, list[tuple[Pair, datetime]]]:
    """Have those evaluated whose moment has come, and wake whom freed nodes have room for.

    Says when that was, of which urgency and namespace the former are, and since when they wait.
    """
    with connection.cursor() as cursor, _times.look() as look:
        at, _, freed, due_in = _look(cursor, look)
    if freed:
        unblock()
    if due_in is None or due_in > 0:
        return at, []
    with connection.cursor() as cursor:
        cursor.execute(_PROMOTE, {"batch": BATCH})
        promoted = cursor.fetchall()
    return at, [((urgency, namespace), since) for urgency, namespace, since, _ in promoted]


_times = Place()


def _look(cursor: CursorWrapper, look: Look) -> tuple[datetime, bool, bool, float | None]:
    cursor.execute(_TIMES, look.parameters)
    at, paused, freed, due_in = cursor.fetchone()
    if not freed and (due_in is None or due_in > 0):
        look.found_nothing_due(at)
    return at, paused, freed, None if due_in is None else float(due_in)


_TIMES = """
    SELECT statement_timestamp(),
           EXISTS (SELECT FROM orchestrator_clustersetting WHERE scheduling_paused),
           EXISTS (SELECT FROM orchestrator_freednode
                   WHERE at >= coalesce(%(after)s::timestamptz, '-infinity')),
           extract(epoch FROM (
               SELECT min(at) FROM orchestrator_brokerdue
               WHERE at >= coalesce(%(after)s::timestamptz, '-infinity')) - clock_timestamp())
"""

_READY = """
    SELECT urgency, namespace, since, extract(epoch FROM clock_timestamp() - since) FROM heads
"""


# One statement without a transaction around it, so no process is stopped while it holds the rows:
# the acknowledgement of a plan may want one of them.  It need not reach the disk: what a crash
# loses was due, and is so again.
# What was parked and is tried once more by itself is so no longer: who leases it need not start
# counting anew.
_PROMOTE = """
    WITH due AS MATERIALIZED (
        SELECT job_id, at, trigger FROM orchestrator_brokerdue
        WHERE at <= (SELECT clock_timestamp())
        ORDER BY at LIMIT %(batch)s
        FOR UPDATE SKIP LOCKED),
    gone AS (
        DELETE FROM orchestrator_brokerdue d USING due WHERE d.job_id = due.job_id),
    failed AS MATERIALIZED (
        SELECT job_id FROM orchestrator_brokerrow
        WHERE job_id IN (SELECT job_id FROM due) AND leased_until IS NULL
        FOR UPDATE SKIP LOCKED),
    tried AS (
        UPDATE orchestrator_brokerrow r SET dead_letter = NULL, retry_at = NULL
        FROM failed WHERE r.job_id = failed.job_id),
    asked AS (
        INSERT INTO orchestrator_brokertrigger (job_id, urgency, namespace, type, trigger, since)
        SELECT job_id, -priority, namespace_id, type, trigger, at
        FROM due JOIN orchestrator_job j ON j.id = due.job_id
        RETURNING urgency, namespace, since)
    SELECT urgency, namespace, since, set_config('synchronous_commit', 'off', true) FROM asked
"""
