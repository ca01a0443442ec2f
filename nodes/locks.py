"""Row locks, in the one order in which every transaction takes them.

First the advisory lock of those that block jobs, then session rows, queue rows, jobs, executions
and nodes, each by id; a transaction takes a subset, in this order, and never goes back.  Every
lock on those tables is taken here, or by a statement that changes one table in that order; the
tests watch each statement and fail where the order is broken.

Locks are FOR NO KEY UPDATE: foreign keys are checked with a KEY SHARE lock on the row they name,
out of any order; against FOR UPDATE that deadlocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from django.db import connection


class Lock(IntEnum):
    """What may be locked, in the order in which it is."""

    BLOCKING = 0
    SESSIONS = 1
    QUEUE = 2
    JOBS = 3
    EXECUTIONS = 4
    NODES = 5
    HEARTBEATS = 6


#: The table of each lock on rows, and the key by which its rows are ordered.
TABLES = {
    Lock.SESSIONS: ("nodes_nodesession", "node_id"),
    Lock.QUEUE: ("orchestrator_brokerrow", "job_id"),
    Lock.JOBS: ("orchestrator_job", "id"),
    Lock.EXECUTIONS: ("orchestrator_execution", "id"),
    Lock.NODES: ("nodes_node", "id"),
    Lock.HEARTBEATS: ("nodes_nodeheartbeat", "node_id"),
}


def lock_rows(lock: Lock, ids: Iterable[Any], columns: str) -> list[tuple[Any, ...]]:
    """Lock the rows with these *ids*, by id, until the transaction ends; their *columns*.

    *columns* is SQL of our own, and what it says is true until then.  Rows that are not there are
    left out.
    """
    wanted = list(set(ids))
    if not wanted:
        return []
    table, key = TABLES[lock]
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {columns} FROM {table} WHERE {key} = ANY(%s)"  # noqa: S608 - our own words
            f" ORDER BY {key} FOR NO KEY UPDATE",
            [wanted],
        )
        return list(cursor.fetchall())
