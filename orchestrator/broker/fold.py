"""Folding: what was asked for, and what has become due, goes into the broker rows.

Only here do triggers become ``want``.  Rows that somebody holds are passed over, with their
triggers: they are folded next time, so a long plan commit delays nobody else.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import connection, transaction

from .enqueue import BY_PEOPLE
from .unblock import unblock

#: Triggers folded by one statement, and statements in one fold.
BATCH, MOST_BATCHES = 1000, 8


def fold() -> int:
    """Bring the broker rows up to date with what was asked for; how many triggers were folded."""
    capacity, due, asked = _look()
    if capacity:
        unblock()
    if not (due or asked):
        return 0
    with transaction.atomic():
        _need_not_reach_the_disk()
        if due:
            _promote()
        return _fold() if asked else 0


def _look() -> tuple[bool, bool, bool]:
    """Whether nodes have more to give, rows have become due, and jobs were asked about."""
    with connection.cursor() as cursor:
        cursor.execute(_LOOK)
        capacity, due, asked = cursor.fetchone()
    return capacity, due, asked


_LOOK = """
    SELECT EXISTS (SELECT FROM orchestrator_brokertrigger WHERE node_id IS NOT NULL),
           EXISTS (SELECT FROM orchestrator_brokerrow
                   WHERE not_before <= (SELECT clock_timestamp())),
           EXISTS (SELECT FROM orchestrator_brokertrigger
                   WHERE node_id IS NULL AND not_before <= (SELECT clock_timestamp()))
"""


def _need_not_reach_the_disk() -> None:
    """Let this transaction commit without waiting: losing it to a crash costs nothing.

    The triggers of a fold are there again; of a lease the fence names the worker, too.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('synchronous_commit', 'off', true)")


def merged(one: str, other: str) -> str:
    """SQL for two jsonb objects of counts as one, the counts added."""
    return f"""
        (SELECT coalesce(jsonb_object_agg(word, n), '{{}}') FROM (
            SELECT word, sum(count::bigint) AS n FROM (
                SELECT * FROM jsonb_each_text({one}) AS a(word, count)
                UNION ALL SELECT * FROM jsonb_each_text({other}) AS b(word, count)) AS both_of_them
            GROUP BY word) AS sums)
    """  # noqa: S608 - our own columns


def _promote() -> None:
    """What only waited for its moment is ready: back-off, follow-up, blocked and dead letters."""
    with connection.cursor() as cursor:
        cursor.execute(_PROMOTE, {"batch": BATCH})


_PROMOTE = f"""
    WITH due AS MATERIALIZED (
        SELECT job_id FROM orchestrator_brokerrow
        WHERE not_before <= (SELECT clock_timestamp())
        ORDER BY not_before LIMIT %(batch)s
        FOR UPDATE SKIP LOCKED)
    UPDATE orchestrator_brokerrow r SET
        not_before = NULL, not_before_trigger = '', dead_letter = NULL,
        blocked_on = NULL, blocked_class = '',
        want = r.want + CASE WHEN r.want > r.done THEN 0 ELSE 1 END,
        ready_since = r.not_before,
        triggers = CASE WHEN r.want > r.done THEN r.triggers
                   ELSE {merged("r.triggers", "jsonb_build_object(r.not_before_trigger, 1)")} END
    FROM due WHERE r.job_id = due.job_id
"""  # noqa: S608 - our own columns


def _fold() -> int:
    passed_over: list[UUID] = []
    folded = 0
    with connection.cursor() as cursor:
        for _ in range(MOST_BATCHES):
            which: dict[str, Any] = {
                "batch": BATCH,
                "passed_over": passed_over,
                "by_people": list(BY_PEOPLE),
            }
            cursor.execute(_NEW_ROWS, which)
            seen, done = cursor.fetchone()
            if done < seen:
                cursor.execute(_FOLD, which)
                others, locked = cursor.fetchone()
                done += others
                passed_over += locked
            folded += done
            if seen < BATCH:
                break
    return folded


# The triggers of this batch, held so that the next statement finds the same.
_DUE = """
    due AS MATERIALIZED (
        SELECT id, job_id, trigger, not_before FROM orchestrator_brokertrigger
        WHERE node_id IS NULL AND not_before <= (SELECT clock_timestamp())
          AND job_id <> ALL (%(passed_over)s::uuid[])
        ORDER BY not_before, id LIMIT %(batch)s
        FOR UPDATE SKIP LOCKED)
"""

# Of the jobs that this ends with: what was asked for each, by trigger; and it is no more asked for.
_COUNTED = """
    counted AS (
        SELECT job_id, sum(n) AS n, jsonb_object_agg(trigger, n) AS triggers, min(since) AS since,
               bool_or(trigger = ANY (%(by_people)s::text[])) AS by_people
        FROM (SELECT job_id, trigger, count(*) AS n, min(not_before) AS since
              FROM due WHERE job_id {} GROUP BY job_id, trigger) AS each_trigger
        GROUP BY job_id)
"""
_GONE = """
    gone AS (
        DELETE FROM orchestrator_brokertrigger t USING due
        WHERE t.id = due.id AND due.job_id {} RETURNING t.id)
"""

# Tokens of a new row begin above all that an earlier row of the same job can have had.  The lock
# on the job is for those who make the same row at the same time: ON CONFLICT waits for them.
_NEW_ROWS = f"""
    WITH {_DUE},
    new AS MATERIALIZED (
        SELECT j.id, j.type, j.priority FROM orchestrator_job j
        WHERE j.id IN (SELECT job_id FROM due)
          AND NOT EXISTS (SELECT FROM orchestrator_brokerrow r WHERE r.job_id = j.id)
        ORDER BY j.id
        FOR NO KEY UPDATE SKIP LOCKED),
    {_COUNTED.format("IN (SELECT id FROM new)")},
    made AS (
        INSERT INTO orchestrator_brokerrow (job_id, type, priority, want, done, token, worker,
            not_before_trigger, deliveries, blocked_class, triggers, ready_since)
        SELECT id, type, priority, n, 0, (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
            '', '', 0, '', triggers, since
        FROM new JOIN counted ON job_id = id
        ON CONFLICT DO NOTHING
        RETURNING job_id),
    {_GONE.format("IN (SELECT job_id FROM made)")}
    SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM gone)
"""  # noqa: S608 - our own columns

# A row in back-off stays there, unless a person asks: else a steady trickle of reports would
# evaluate a poisoned job in a hot loop.  NOT IN is hashed whatever the planner expects of a table
# that is empty most of the time; joins of these lists were compared pair by pair.
_FOLD = f"""
    WITH {_DUE},
    held AS MATERIALIZED (
        SELECT job_id FROM orchestrator_brokerrow
        WHERE job_id IN (SELECT job_id FROM due)
        ORDER BY job_id
        FOR UPDATE SKIP LOCKED),
    passed_over AS MATERIALIZED (
        SELECT DISTINCT job_id FROM due WHERE job_id NOT IN (SELECT job_id FROM held)),
    {_COUNTED.format("NOT IN (SELECT job_id FROM passed_over)")},
    {_GONE.format("NOT IN (SELECT job_id FROM passed_over)")},
    folded AS (
        UPDATE orchestrator_brokerrow r SET
            want = r.want + c.n,
            type = j.type, priority = j.priority,
            triggers = {merged("r.triggers", "c.triggers")},
            ready_since = CASE WHEN r.want > coalesce(r.leased_want, r.done)
                                    AND r.dead_letter IS NULL
                               THEN r.ready_since ELSE c.since END,
            deliveries = CASE WHEN r.leased_want IS NULL
                                   AND (r.dead_letter IS NOT NULL OR c.by_people)
                              THEN 0 ELSE r.deliveries END,
            not_before = CASE WHEN r.leased_want IS NULL AND r.dead_letter IS NULL
                                   AND r.deliveries > 0 AND NOT c.by_people
                              THEN r.not_before END,
            not_before_trigger = '', dead_letter = NULL, blocked_on = NULL, blocked_class = ''
        FROM counted c JOIN orchestrator_job j ON j.id = c.job_id
        WHERE r.job_id = c.job_id)
    SELECT (SELECT count(*) FROM gone), ARRAY(SELECT job_id FROM passed_over)
"""  # noqa: S608 - our own columns
