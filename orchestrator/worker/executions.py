"""The executions of jobs that are not settled, as the schedulers look at them.

Nearly all executions of a large job run as they were told.  They are read as columns, which costs
little beside reading each with all that could be said of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import numpy as np
from django.db import connection
from psycopg.pq import Format

from orchestrator.lifecycle import Desired, Observed
from orchestrator.scheduling.feasibility import remember
from orchestrator.scheduling.running import instant
from orchestrator.scheduling.world import NONE_IN_COLUMNS, ExecutionView, Nodes, Running

#: A job of so many slots is large.
MANY = 100

#: Looked up thousands of times in one group; calling the enum costs ten times as much.
_DESIRED = {str(state): state for state in Desired}
_OBSERVED = {str(state): state for state in Observed}


class Job(Protocol):
    @property
    def id(self) -> UUID: ...
    @property
    def slots(self) -> int: ...
    @property
    def generation(self) -> str: ...
    @property
    def round(self) -> int: ...


@dataclass(slots=True)
class Unsettled:
    """Those of one job: one by one, in the order of their ids, and those that run as told."""

    views: list[ExecutionView] = field(default_factory=list)
    running: Running = NONE_IN_COLUMNS

    @property
    def versions(self) -> set[int]:
        return {it.version for it in self.views}.union(np.unique(self.running.versions).tolist())


def unsettled(jobs: Collection[Job], nodes: Nodes) -> dict[UUID, Unsettled]:
    """The executions of each of *jobs*, each as it was at one instant.

    Of a large job it is looked up first which there are, and then what is said of those that do
    not run as told.  What begins or ends meanwhile is neither missed nor seen twice.
    """
    found = {job.id: Unsettled() for job in jobs}
    large = {job.id: job for job in jobs if job.slots >= MANY}
    query, values = _OF_JOBS, [[job for job in found if job not in large]]
    if large:
        others: list[UUID] = []
        for job, columns, them in _told_apart(large.values()):
            if columns:
                found[job].running = _running(columns, large[job], nodes)
            others += them or ()
        query, values = _OF_JOBS + _MORE, [*values, others]
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        rows = cursor.fetchall()
    for job, *it in rows:
        it[7:9] = _DESIRED[it[7]], _OBSERVED[it[8]]
        found[job].views.append(ExecutionView(*it))
    for unsettled in found.values():
        unsettled.views.sort(key=lambda it: it.id)
    return found


_VIEWS = """
    SELECT job_id, id::text, node_id::text, slot, attempt, version, generation, round, desired,
        observed, created_at, started_at, ended_at, exit_code, code, message, retryable, reserved,
        stop_cause
    FROM orchestrator_execution
"""
_OF_JOBS = f"{_VIEWS} WHERE job_id = ANY(%s) AND NOT settled"
_MORE = f" UNION ALL {_VIEWS} WHERE id = ANY(%s)"


def _told_apart(large: Iterable[Job]) -> list[tuple[UUID, bytes | None, list[UUID] | None]]:
    """Of each job the records of what runs its task in its round, and the ids of the others."""
    known = [(job.id, job.generation, job.round) for job in large]
    with connection.cursor() as cursor:
        cursor.cursor.format = Format.BINARY  # As text what is read would be twice as long.
        cursor.execute(
            """
            SELECT job_id, string_agg(
                    uuid_send(id) || uuid_send(node_id) || int4send(slot) || int4send(attempt)
                    || int4send(version) || timestamptz_send(created_at)
                    || timestamptz_send(started_at), '') FILTER (WHERE as_told),
                array_agg(id) FILTER (WHERE NOT as_told)
            FROM (
                SELECT e.*, e.generation = j.generation AND e.round = j.round
                    AND desired = 'running' AND observed = 'running' AND started_at IS NOT NULL
                    AS as_told
                FROM orchestrator_execution e
                JOIN unnest(%s::uuid[], %s::text[], %s::int[]) AS j(id, generation, round)
                    ON j.id = e.job_id
                WHERE NOT settled OFFSET 0) e
            GROUP BY job_id
            """,
            [list(column) for column in zip(*known, strict=True)],
        )
        rows: list[tuple[UUID, bytes | None, list[UUID] | None]] = cursor.fetchall()
        return rows


_RECORD = np.dtype(
    [
        ("id", "V16"),
        ("node", "V16"),
        ("slot", ">i4"),
        ("attempt", ">i4"),
        ("version", ">i4"),
        ("created_at", ">i8"),
        ("started_at", ">i8"),
    ]
)


def _running(columns: bytes, job: Job, nodes: Nodes) -> Running:
    """What the database has put one after the other."""
    records = np.frombuffer(columns, dtype=_RECORD)
    rows, on = _rows(nodes), records["node"].tobytes()
    return Running(
        slots=records["slot"].astype(np.int64),
        nodes=np.array([rows.get(on[i : i + 16], -1) for i in range(0, len(on), 16)], np.int64),
        versions=records["version"].astype(np.int64),
        started=records["started_at"].astype(np.int64),
        view=lambda row: _view(records[row], job),
    )


def _rows(nodes: Nodes) -> dict[bytes, int]:
    """The row of each node by the bytes of its id."""
    rows: dict[bytes, int] | None = nodes.memo.get("rows")
    if rows is None:
        rows = {UUID(node).bytes: row for node, row in nodes.index.items()}
        remember(nodes.memo, "rows", rows)
    return rows


def _view(record: Any, job: Job) -> ExecutionView:
    return ExecutionView(
        id=str(UUID(bytes=record["id"].tobytes())),
        node=str(UUID(bytes=record["node"].tobytes())),
        slot=int(record["slot"]),
        attempt=int(record["attempt"]),
        version=int(record["version"]),
        generation=job.generation,
        round=job.round,
        desired=Desired.RUNNING,
        observed=Observed.RUNNING,
        created_at=instant(int(record["created_at"])),
        started_at=instant(int(record["started_at"])),
    )
