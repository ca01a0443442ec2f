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
from nodes.protocol.resources import DIMENSIONS
from orchestrator.lifecycle import Desired, JobState, Observed
from orchestrator.models import SlotState, spec_cache
from orchestrator.scheduling.world import Cluster, ExecutionView, Ints, JobView, World
from orchestrator.spec import JobBody


class Leased(Protocol):
    @property
    def job(self) -> UUID: ...


class ClusterView:
    """All nodes as columns, kept by one process and refreshed by what has changed since.

    Not safe for threads: one per worker.
    """

    #: Seconds after which everything is read again, whatever was missed.
    RELOAD = 60.0

    def __init__(self) -> None:
        self._rows: dict[str, Mapping[str, Any]] = {}
        self._watermark = 0
        self._loaded_at = float("-inf")
        self._cluster: Cluster | None = None
        self._allocated: Ints = np.zeros((0, len(DIMENSIONS)), dtype=np.int64)

    def refresh(self) -> Cluster:
        """The cluster as of now, or a moment later than any commit that this process has seen.

        The cluster is the caller's to ``take`` from; the next refresh forgets what was taken.
        """
        if time.monotonic() - self._loaded_at > self.RELOAD:
            self._rows, self._watermark = {}, 0
            self._cluster, self._loaded_at = None, time.monotonic()
        read = self._read()
        changed = [row for row in read if row["removed_at"] is None]
        removed = (row["id"] for row in read if row["removed_at"] is not None)
        gone = [key for key in removed if self._rows.pop(key, None)]
        structural = self._cluster is None or bool(gone)
        for row in changed:
            before = self._rows.get(row["id"])
            structural = structural or before is None or _columns_differ(before, row)
            self._rows[row["id"]] = row
        if structural or self._cluster is None:
            self._cluster = _cluster(list(self._rows.values()), self._watermark)
            self._allocated = self._cluster.allocated.copy()
        else:
            self._patch(self._cluster, changed)
        return self._cluster

    def _read(self) -> list[Mapping[str, Any]]:
        with connection.cursor() as cursor:
            # Nodes that were removed are news only for who has them.
            cursor.execute(_NODES, [str(self._watermark), bool(self._rows)])
            names = [column.name for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        self._watermark = int(rows[0]["horizon"])
        return [
            {
                **row,
                "labels": json.loads(row["labels"]),
                "attributes": json.loads(row["attributes"]),
            }
            for row in rows
            if row["id"] is not None
        ]

    def _patch(self, cluster: Cluster, changed: Sequence[Mapping[str, Any]]) -> None:
        """Only amounts have changed: write them, over what the last group had taken."""
        for row in changed:
            self._allocated[cluster.index[row["id"]]] = [row[f"allocated_{d}"] for d in DIMENSIONS]
        np.copyto(cluster.allocated, self._allocated)
        cluster.taken.clear()
        cluster.revision = self._watermark


def worlds(leases: Sequence[Leased], cluster: Cluster) -> list[World | None]:
    """The world of each leased job, in the order of *leases*; None for a job that is gone.

    Four queries at most, whatever the number of jobs; ended executions that are settled are not
    read, so the cost does not grow with history.
    """
    ids = [lease.job for lease in leases]
    jobs = {row.id: row for row in _jobs(ids)}
    executions, slots = _unsettled(ids), _slots(ids)
    versions = {job: {it.version for it in them} for job, them in executions.items()}
    live = {(job, version) for job, them in versions.items() for version in them}
    specs = spec_cache.specs({(row.id, row.version) for row in jobs.values()} | live)
    return [
        World(
            job=_job_view(row, specs[job, row.version], slots.get(job, ())),
            executions=tuple(executions.get(job, ())),
            cluster=cluster,
            now=row.now,
            algorithm=row.algorithm,
            specs={version: specs[job, version] for version in versions.get(job, ())},
        )
        if (row := jobs.get(job)) is not None
        else None
        for job in ids
    ]


_NODES = f"""
    WITH horizon AS (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin)
    SELECT horizon.xmin::text AS horizon, n.id::text AS id, n.name, n.approval, n.connection,
           n.eligible, n.draining, n.quarantined, n.degraded, n.labels, n.attributes,
           n.removed_at,
           {", ".join(f"n.capacity_{d}, n.allocated_{d}, n.advertised_{d}" for d in DIMENSIONS)}
    FROM horizon LEFT JOIN nodes_node n ON n.changed >= %s::xid8 AND (n.removed_at IS NULL OR %s)
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


def _cluster(rows: Sequence[Mapping[str, Any]], revision: int) -> Cluster:
    rows = sorted(rows, key=lambda row: str(row["id"]))
    unready = [readiness.sentence(row) for row in rows]
    return Cluster(
        ids=tuple(row["id"] for row in rows),
        names=tuple(row["name"] for row in rows),
        labels=tuple(selectable(row["name"], row["labels"], row["attributes"]) for row in rows),
        capacity=_amounts(rows, "capacity"),
        allocated=_amounts(rows, "allocated"),
        offered=_amounts(rows, "advertised"),
        ready=np.array([not why for why in unready], dtype=np.bool_),
        unready=tuple(unready),
        revision=revision,
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
    rows = SlotState.objects.filter(job_id__in=jobs)
    found: dict[UUID, list[spec_cache.Slot]] = {}
    for job, *slot in rows.values_list("job_id", *spec_cache.SLOT):
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


def _unsettled(jobs: Sequence[UUID]) -> dict[UUID, list[ExecutionView]]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT job_id, id::text, node_id::text, slot, attempt, version, generation,
                   round, desired, observed, created_at, started_at, ended_at, exit_code, code,
                   message, retryable, reserved, stop_cause
            FROM orchestrator_execution WHERE job_id = ANY(%s) AND NOT settled ORDER BY id
            """,
            [list(jobs)],
        )
        rows = cursor.fetchall()
    found: dict[UUID, list[ExecutionView]] = {}
    for job, *it in rows:
        it[7:9] = _DESIRED[it[7]], _OBSERVED[it[8]]
        found.setdefault(job, []).append(ExecutionView(*it))
    return found


#: Looked up thousands of times in one group; calling the enum costs ten times as much.
_DESIRED = {str(state): state for state in Desired}
_OBSERVED = {str(state): state for state in Observed}
