"""Rows to worlds: what the schedulers may look at, read in a handful of queries a group."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import numpy as np
from django.db import connection

from nodes import readiness
from nodes.labels import selectable
from nodes.models import NOTHING_SEEN, UNSEEN
from nodes.protocol.resources import DIMENSIONS
from orchestrator.lifecycle import JobState
from orchestrator.models import spec_cache
from orchestrator.scheduling.world import Ints, JobView, Nodes, Room, World
from orchestrator.spec import JobBody

from .executions import unsettled


class Leased(Protocol):
    @property
    def job(self) -> UUID: ...


class ClusterView:
    """All nodes as columns, kept by one process and refreshed by what has changed since.

    Not safe for threads: one per worker.  Its nodes may be read by any.
    """

    #: Seconds after which everything is read again, whatever was missed.
    RELOAD = 60.0

    def __init__(self) -> None:
        self._rows: dict[str, Mapping[str, Any]] = {}
        self._seen = NOTHING_SEEN
        self._loaded_at = float("-inf")
        self._room: Room | None = None
        self._allocated: Ints = np.zeros((0, len(DIMENSIONS)), dtype=np.int64)

    def refresh(self) -> Room:
        """The room as of now, or a moment later than any commit that this process has seen.

        It is the caller's to ``take`` from; the next refresh forgets what was taken.
        """
        if time.monotonic() - self._loaded_at > self.RELOAD:
            self._rows, self._seen = {}, NOTHING_SEEN
            self._room, self._loaded_at = None, time.monotonic()
        read = self._read()
        changed = [row for row in read if row["removed_at"] is None]
        removed = (row["id"] for row in read if row["removed_at"] is not None)
        gone = [key for key in removed if self._rows.pop(key, None)]
        structural = self._room is None or bool(gone)
        for row in changed:
            before = self._rows.get(row["id"])
            structural = structural or before is None or _columns_differ(before, row)
            self._rows[row["id"]] = row
        if structural or self._room is None:
            rows = sorted(self._rows.values(), key=lambda row: str(row["id"]))
            self._room = Room(_nodes(rows), _amounts(rows, "allocated"), self._seen)
            self._allocated = self._room.allocated.copy()
            return self._room
        for row in changed:
            at = self._room.nodes.index[row["id"]]
            self._allocated[at] = [row[f"allocated_{d}"] for d in DIMENSIONS]
        self._room.renew(self._allocated, self._seen)
        return self._room

    def _read(self) -> list[Mapping[str, Any]]:
        with connection.cursor() as cursor:
            # Nodes that were removed are news only for who has them.
            cursor.execute(_NODES, {"seen": self._seen, "with_removed": bool(self._rows)})
            names = [column.name for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        self._seen = rows[0]["seen"]
        return [
            {
                **row,
                "labels": json.loads(row["labels"]),
                "attributes": json.loads(row["attributes"]),
            }
            for row in rows
            if row["id"] is not None
        ]


def worlds(leases: Sequence[Leased], room: Room) -> list[World | None]:
    """The world of each leased job, in the order of *leases*; None for a job that is gone.

    Six queries at most, whatever the number of jobs; ended executions that are settled are not
    read, so the cost does not grow with history.
    """
    ids = [lease.job for lease in leases]
    jobs = {row.id: row for row in _jobs(ids)}
    executions, slots = unsettled(jobs.values(), room.nodes), _slots(ids)
    versions = {job: them.versions for job, them in executions.items()}
    live = {(job, version) for job, them in versions.items() for version in them}
    specs = spec_cache.specs({(row.id, row.version) for row in jobs.values()} | live)
    return [
        World(
            job=_job_view(row, specs[job, row.version], slots.get(job, ())),
            executions=tuple(executions[job].views),
            room=room,
            now=row.now,
            algorithm=row.algorithm,
            specs={version: specs[job, version] for version in versions[job]},
            running=executions[job].running,
        )
        if (row := jobs.get(job)) is not None
        else None
        for job in ids
    ]


#: What could not be seen then: so who has a transaction open for long has no node read again.
_NODES = f"""
    WITH look AS (SELECT pg_current_snapshot() AS now)
    SELECT now::text AS seen, n.id::text AS id, n.name, n.approval, n.connection, n.eligible,
           n.draining, n.quarantined, n.degraded, n.labels, n.attributes, n.removed_at,
           {", ".join(f"n.capacity_{d}, n.allocated_{d}, n.advertised_{d}" for d in DIMENSIONS)}
    FROM look LEFT JOIN (
        SELECT * FROM nodes_node WHERE {UNSEEN} AND (removed_at IS NULL OR %(with_removed)s)
    ) n ON true
    ORDER BY n.id
"""  # noqa: S608 - only our own columns

_STRUCTURE = (
    "name",
    *readiness.READY,
    "labels",
    "attributes",
    *(f"{what}_{dimension}" for what in ("capacity", "advertised") for dimension in DIMENSIONS),
)


def _columns_differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return any(before[column] != after[column] for column in _STRUCTURE)


def _nodes(rows: Sequence[Mapping[str, Any]]) -> Nodes:
    unready = [readiness.sentence(row) for row in rows]
    return Nodes(
        ids=tuple(row["id"] for row in rows),
        names=tuple(row["name"] for row in rows),
        labels=tuple(selectable(row["name"], row["labels"], row["attributes"]) for row in rows),
        capacity=_amounts(rows, "capacity"),
        offered=_amounts(rows, "advertised"),
        ready=np.array([not why for why in unready], dtype=np.bool_),
        unready=tuple(unready),
    )


def _amounts(rows: Sequence[Mapping[str, Any]], what: str) -> Ints:
    amounts = [[row[f"{what}_{dimension}"] for dimension in DIMENSIONS] for row in rows]
    return np.array(amounts, dtype=np.int64).reshape(len(rows), len(DIMENSIONS))


class _Job(NamedTuple):
    """A row of a job, with the instant and the setting that all worlds of a group share."""

    id: UUID
    name: str
    version: int
    generation: str
    slots: int
    round: int
    state: str
    submitted_at: datetime
    intent_rev: int
    stop_requested: bool
    stop_reason: str
    stopped_by: str
    progress: str
    now: datetime
    algorithm: str


def _jobs(ids: Sequence[UUID]) -> list[_Job]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH shared AS MATERIALIZED (
                SELECT clock_timestamp() AS now, algorithm FROM orchestrator_clustersetting
                WHERE id = 1)
            SELECT j.id, j.name, j.version, v.generation, j.count, j.round, j.state, j.round_at,
                   j.intent_rev, j.stop_requested, j.stop_reason, j.stopped_by, j.progress,
                   shared.now, shared.algorithm
            FROM orchestrator_job j
            JOIN orchestrator_jobversion v ON v.job_id = j.id AND v.number = j.version
            CROSS JOIN shared WHERE j.id = ANY(%s)
            """,
            [list(ids)],
        )
        return [_Job(*row) for row in cursor.fetchall()]


def _slots(jobs: Sequence[UUID]) -> dict[UUID, list[spec_cache.Slot]]:
    columns = ", ".join(spec_cache.SLOT)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT job_id, {columns} FROM orchestrator_slotstate WHERE job_id = ANY(%s)",  # noqa: S608
            [list(jobs)],
        )
        rows = cursor.fetchall()
    found: dict[UUID, list[spec_cache.Slot]] = {}
    for job, *slot in rows:
        found.setdefault(job, []).append(tuple(slot))
    return found


def _job_view(job: _Job, spec: JobBody, slots: Sequence[spec_cache.Slot]) -> JobView:
    return JobView(
        id=str(job.id),
        name=job.name,
        spec=spec,
        count=job.slots,
        version=job.version,
        generation=job.generation,
        round=job.round,
        state=JobState(job.state),
        submitted_at=job.submitted_at,
        intent_rev=job.intent_rev,
        stop_requested=job.stop_requested,
        stop_reason=job.stop_reason,
        stopped_by=job.stopped_by,
        progress=spec_cache.load_progress(json.loads(job.progress), slots),
    )
