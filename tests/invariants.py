"""What must hold of a database, whatever was killed: each rule a query, each violation a sentence.

Plain SQL over any cursor, so that a test may ask a cluster that runs in other processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from nodes.protocol.lifecycle import Lifecycle
from orchestrator.lifecycle import DESIRED, OBSERVED, WRITERS

MOST_NAMED = 5
"""Of the rows that break one rule, so many are named."""


class Cursor(Protocol):
    """Of Django or of psycopg."""

    def execute(self, query: Any, params: Any = None, /) -> Any: ...

    def fetchall(self) -> list[Any]: ...


def violations(cursor: Cursor) -> list[str]:
    """What is wrong at any moment, also in the middle of work."""
    return [*_broken(cursor, _ALWAYS), *_illegal_moves(cursor)]


def violations_when_quiet(cursor: Cursor) -> list[str]:
    """What is wrong once nothing is left to do: nobody leased, forgotten or half done."""
    return [*violations(cursor), *_broken(cursor, _WHEN_QUIET)]


def violations_of_proofs(cursor: Cursor, proofs: Path) -> list[str]:
    """What the tasks' own evidence says against the database.

    A task makes the file *proofs*/<execution id> with O_EXCL, and <execution id>.again if it finds
    it there; no agent and no database has a part in it.
    """
    names = {path.name for path in proofs.iterdir()}
    begun = {name for name in names if not name.endswith(".again")}
    cursor.execute(
        "SELECT id::text, observed, EXISTS (SELECT FROM orchestrator_executionhistory h"
        " WHERE h.execution_id = e.id AND h.after = 'bid_accepted') FROM orchestrator_execution e"
    )
    rows = {key: (observed, was_told) for key, observed, was_told in cursor.fetchall()}
    told = {key for key, (_, was_told) in rows.items() if was_told}
    completed = {key for key, (observed, _) in rows.items() if observed == "completed"}
    return [
        *_named("was started twice", sorted(names - begun)),
        *_named("ran, but no row knows it", sorted(begun - rows.keys())),
        *_named("ran, but nobody was told to run it", sorted((begun & rows.keys()) - told)),
        *_named("is completed, but never ran", sorted(completed - begun)),
    ]


# --- the rules -------------------------------------------------------------------------------

#: Each query gives the rows that break its rule.
_ALWAYS = {
    "allocated is the sum of what is reserved": """
        SELECT n.name, n.allocated_cpu, s.cpu, n.allocated_memory, s.memory,
               n.allocated_disk, s.disk, n.allocated_gpu, s.gpu
        FROM nodes_node n CROSS JOIN LATERAL (
            SELECT coalesce(sum(cpu), 0) AS cpu, coalesce(sum(memory), 0) AS memory,
                   coalesce(sum(disk), 0) AS disk, coalesce(sum(gpu), 0) AS gpu
            FROM orchestrator_execution e WHERE e.node_id = n.id AND e.reserved) s
        WHERE (n.allocated_cpu, n.allocated_memory, n.allocated_disk, n.allocated_gpu)
              IS DISTINCT FROM (s.cpu, s.memory, s.disk, s.gpu)
    """,
    "one approved execution a slot, or as many bids as the job asks for": """
        SELECT j.name, e.slot, count(*), array_agg(e.id || ' ' || e.desired || '/' || e.observed)
        FROM orchestrator_execution e JOIN orchestrator_job j ON j.id = e.job_id
        LEFT JOIN orchestrator_jobversion v ON v.job_id = e.job_id AND v.number = e.version
        WHERE e.desired <> 'stopped'
        GROUP BY j.name, e.slot
        HAVING count(*) > CASE WHEN bool_or(e.desired = 'running') THEN 1
                               ELSE max(coalesce((v.spec ->> 'ask')::int, 1)) END
    """,
    "no slot beyond the count": """
        SELECT j.name, e.slot, j.count
        FROM orchestrator_execution e JOIN orchestrator_job j ON j.id = e.job_id
        WHERE e.desired <> 'stopped' AND e.version = j.version AND e.slot >= j.count
    """,
    "history has every revision": """
        SELECT e.id, e.rev, h.revs
        FROM orchestrator_execution e CROSS JOIN LATERAL (
            SELECT array_agg(DISTINCT rev ORDER BY rev) AS revs
            FROM orchestrator_executionhistory WHERE execution_id = e.id) h
        WHERE h.revs IS DISTINCT FROM ARRAY(SELECT generate_series(1, e.rev))
    """,
    "every move begins where the last one ended": """
        SELECT execution_id, lane, rev, former, before FROM (
            SELECT execution_id, lane, rev, before,
                   lag(after, 1, '') OVER (PARTITION BY execution_id, lane ORDER BY rev) AS former
            FROM orchestrator_executionhistory) moves
        WHERE before <> former
    """,
    "history ends in the present": """
        SELECT e.id, e.desired, h.desired, e.observed, h.observed
        FROM orchestrator_execution e CROSS JOIN LATERAL (
            SELECT (array_agg(after ORDER BY rev DESC) FILTER (WHERE lane = 'desired'))[1]
                       AS desired,
                   (array_agg(after ORDER BY rev DESC) FILTER (WHERE lane = 'observed'))[1]
                       AS observed
            FROM orchestrator_executionhistory WHERE execution_id = e.id) h
        WHERE (h.desired, h.observed) IS DISTINCT FROM (e.desired::text, e.observed::text)
    """,
    "an order was given before it was taken": """
        SELECT e.id, e.told_rev, e.order_rev, n.order_rev
        FROM orchestrator_execution e JOIN nodes_node n ON n.id = e.node_id
        WHERE e.told_rev > n.order_rev OR e.order_rev > n.order_rev
    """,
    "what lives is looked up as it is": """
        SELECT coalesce(e.id, l.execution_id), e.desired, e.observed, e.settled, e.reserved,
               l.job_id, l.node_id, l.slot, l.is_wanted, l.record
        FROM (SELECT * FROM orchestrator_execution WHERE NOT settled OR reserved) e
        FULL JOIN orchestrator_liveexecution l ON l.execution_id = e.id
        WHERE (e.job_id, e.node_id, e.slot, nullif(e.desired = 'running', false))
              IS DISTINCT FROM (l.job_id, l.node_id, l.slot, l.is_wanted)
           OR l.record IS NOT NULL AND ((e.desired, e.observed) <> ('running', 'running')
                  OR length(l.record) <> 64 OR substr(l.record, 1, 16) <> uuid_send(e.id))
    """,
    "what a node was not told is looked up as it is": """
        SELECT coalesce(e.id, u.execution_id), e.order_rev, e.told_rev, u.rev
        FROM (SELECT * FROM orchestrator_execution WHERE order_rev > told_rev) e
        FULL JOIN orchestrator_untoldorder u ON u.execution_id = e.id
        WHERE (e.node_id, e.order_rev) IS DISTINCT FROM (u.node_id, u.rev)
    """,
    "one evaluation of a job at a time": """
        SELECT e.job_id, e.id, later.id FROM orchestrator_evaluation e
        JOIN orchestrator_evaluation later ON later.job_id = e.job_id AND later.id > e.id
        WHERE later.leased_at < e.finished_at
    """,
    "a completed batch job has each slot completed once": """
        SELECT j.name, j.count, e.completed, e.slots
        FROM orchestrator_job j CROSS JOIN LATERAL (
            SELECT count(*) AS completed, count(DISTINCT slot) AS slots
            FROM orchestrator_execution
            WHERE job_id = j.id AND round = j.round
              AND observed = 'completed' AND slot < j.count) e
        WHERE j.type = 'batch' AND j.state = 'completed'
          AND (e.completed, e.slots) IS DISTINCT FROM (j.count::bigint, j.count::bigint)
    """,
}

_WHEN_QUIET = {
    "nobody holds a lease": """
        SELECT job_id, worker, leased_until FROM orchestrator_brokerrow
        WHERE leased_until IS NOT NULL
    """,
    "nobody asks unheard": """
        SELECT id, job_id, trigger, since FROM orchestrator_brokertrigger
    """,
    "no freed node is left aside": """
        SELECT id, node_id, at FROM orchestrator_freednode
    """,
    "nothing that is due is left aside": """
        SELECT job_id, at, trigger FROM orchestrator_brokerdue WHERE at <= clock_timestamp()
    """,
    "what is tried again has its moment": """
        SELECT job_id, deliveries FROM orchestrator_brokerrow r
        WHERE dead_letter IS NULL
          AND NOT EXISTS (SELECT FROM orchestrator_brokerdue d WHERE d.job_id = r.job_id)
    """,
    "every blocked job has its class": """
        SELECT job_id, class FROM orchestrator_blockedjob b
        WHERE NOT EXISTS (SELECT FROM orchestrator_blockedclass c WHERE c.digest = b.class)
    """,
    "every job was evaluated": """
        SELECT name FROM orchestrator_job j
        WHERE NOT EXISTS (SELECT FROM orchestrator_evaluation e
                          WHERE e.job_id = j.id AND e.state NOT IN ('failed', 'cancelled'))
    """,
    "a job that has ended keeps nothing alive": """
        SELECT j.name, j.state, e.id, e.desired, e.observed
        FROM orchestrator_job j JOIN orchestrator_execution e ON e.job_id = j.id
        WHERE j.state IN ('completed', 'failed', 'stopped') AND e.desired <> 'stopped'
    """,
    "a job that goes on waits for something": """
        SELECT j.name, j.state FROM orchestrator_job j
        WHERE j.state NOT IN ('completed', 'failed', 'stopped')
          AND NOT EXISTS (SELECT FROM orchestrator_execution e
                          WHERE e.job_id = j.id AND e.ended_at IS NULL)
          AND NOT EXISTS (SELECT FROM orchestrator_brokerrow r WHERE r.job_id = j.id)
          AND NOT EXISTS (SELECT FROM orchestrator_brokerdue d WHERE d.job_id = j.id)
          AND NOT EXISTS (SELECT FROM orchestrator_blockedjob b WHERE b.job_id = j.id)
          AND NOT EXISTS (SELECT FROM orchestrator_brokertrigger t WHERE t.job_id = j.id)
    """,
}


def _broken(cursor: Cursor, rules: dict[str, str]) -> Iterator[str]:
    for rule, query in rules.items():
        cursor.execute(query)
        yield from _named(f"breaks the rule: {rule}", cursor.fetchall())


def _illegal_moves(cursor: Cursor) -> Iterator[str]:
    cursor.execute(_MOVES_SEEN, [sorted(map(str, OBSERVED.terminal))])
    seen = set(cursor.fetchall())
    legal = {*_moves("observed", OBSERVED), *_moves("desired", DESIRED), *_BEGINNINGS}
    yield from _named("is no legal move", sorted(seen - legal))


#: Every kind of move, but for those that close the desired lane with a terminal observation of
#: the same writer in the same revision: whoever may write that may close.
_MOVES_SEEN = """
    SELECT DISTINCT lane, before, after, writer FROM orchestrator_executionhistory h
    WHERE NOT (lane = 'desired' AND before IN ('pending', 'running') AND after = 'stopped'
               AND EXISTS (SELECT FROM orchestrator_executionhistory o
                           WHERE o.execution_id = h.execution_id AND o.rev = h.rev
                             AND o.lane = 'observed' AND o.writer = h.writer
                             AND o.after = ANY (%s)))
"""


_BEGINNINGS = {
    ("observed", "", str(OBSERVED.initial), "state-updater"),
    ("desired", "", "pending", "state-updater"),
    ("desired", "", "running", "state-updater"),  # A job that needs no approval.
}


def _moves(lane: str, table: Lifecycle[Any]) -> set[tuple[str, str, str, str]]:
    return {
        (lane, str(before), str(after), str(writer))
        for before, event, after in table.edges()
        for writer in WRITERS[event]
    }


def _named(what: str, rows: list[Any]) -> Iterator[str]:
    for row in rows[:MOST_NAMED]:
        shown = row if isinstance(row, str) else " ".join(map(str, row))
        yield f"{shown} {what}"
    if len(rows) > MOST_NAMED:
        yield f"... and {len(rows) - MOST_NAMED} more: {what}"
