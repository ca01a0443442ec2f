"""The executions of jobs that are not settled, as the schedulers look at them.

Nearly all executions of a large job run as they were told.  They are read as columns, which costs
little beside reading each with all that could be said of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import numpy as np
import numpy.typing as npt
from django.db import connection
from psycopg.pq import Format

from orchestrator.lifecycle import Desired, Observed
from orchestrator.models.execution_moves import MANY
from orchestrator.scheduling.feasibility import remember
from orchestrator.scheduling.running import instant
from orchestrator.scheduling.world import NONE_IN_COLUMNS, ExecutionView, Ints, Nodes, Running

#: Looked up thousands of times in one group; calling the enum costs ten times as much.
_DESIRED = {str(state): state for state in Desired}
_OBSERVED = {str(state): state for state in Observed}

Records = npt.NDArray[np.void]


class Job(Protocol):
    @property
    def id(self) -> UUID: ...
    @property
    def slots(self) -> int: ...
    @property
    def version(self) -> int: ...
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
    others: list[UUID] = []
    if large:
        records = _records(large)
        alike = _versions_alike(records, large)
        for job, them in records.items():
            found[job].running, ids = _running(them, large[job], alike[job], nodes)
            others += ids
    small = [job for job in found if job not in large]
    asked = [*([(_OF_JOBS, small)] if small else ()), *([(_BY_ID, others)] if others else ())]
    if not asked:
        return found
    query, values = " UNION ALL ".join(it for it, _ in asked), [ids for _, ids in asked]
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
    SELECT e.job_id, e.id::text, e.node_id::text, e.slot, attempt, version, generation, round,
        desired, observed, created_at, started_at, ended_at, exit_code, code, message, retryable,
        reserved, stop_cause
"""
# With OFFSET each is looked up by its id, however many the planner expects: history is long.
_OF_JOBS = f"""
    {_VIEWS} FROM orchestrator_liveexecution l
    CROSS JOIN LATERAL (SELECT * FROM orchestrator_execution WHERE id = execution_id OFFSET 0) e
    WHERE l.job_id = ANY(%s) AND NOT settled
"""  # noqa: S608 - only our own columns
_BY_ID = f"{_VIEWS} FROM orchestrator_execution e WHERE id = ANY(%s) AND NOT settled"


def _records(large: Iterable[UUID]) -> dict[UUID, Records]:
    """Of each job the records of what runs as it was told, and of others with nothing but an id."""
    with connection.cursor() as cursor:
        cursor.cursor.format = Format.BINARY  # As text what is read would be twice as long.
        cursor.execute(
            """
            SELECT job, (
                SELECT string_agg(coalesce(record, uuid_send(execution_id) || %s), '')
                FROM orchestrator_liveexecution WHERE job_id = job)
            FROM unnest(%s::uuid[]) AS job
            """,
            [bytes(_RECORD.itemsize - 16), list(large)],
        )
        return {job: np.frombuffer(them or b"", dtype=_RECORD) for job, them in cursor.fetchall()}


_RECORD = np.dtype(
    [
        ("id", "V16"),
        ("node", "V16"),
        ("slot", ">i4"),
        ("attempt", ">i4"),
        ("version", ">i4"),
        ("round", ">i4"),
        ("created_at", ">i8"),
        ("started_at", ">i8"),
    ]
)


def _versions_alike(
    records: Mapping[UUID, Records], large: Mapping[UUID, Job]
) -> dict[UUID, list[int]]:
    """The version of each job, and which others of those found run the same."""
    alike = {job: [it.version] for job, it in large.items()}
    others = [
        (job, number, large[job].generation)
        for job, them in records.items()
        for number in np.unique(them["version"]).tolist()
        if number not in (0, large[job].version)
    ]
    if not others:
        return alike
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT job_id, number FROM orchestrator_jobversion
            JOIN unnest(%s::uuid[], %s::int[], %s::text[]) AS found(job_id, number, generation)
                USING (job_id, number, generation)
            """,
            [list(column) for column in zip(*others, strict=True)],
        )
        for job, number in cursor.fetchall():
            alike[job].append(number)
    return alike


def _running(
    records: Records, job: Job, alike: Sequence[int], nodes: Nodes
) -> tuple[Running, list[UUID]]:
    """What runs the job's task in its round, and the ids of the others."""
    versions = records["version"].astype(np.int64)
    is_current = np.isin(versions, alike) & (records["round"] == job.round)
    others = [UUID(bytes=it.tobytes()) for it in records["id"][~is_current]]
    records = records[is_current]
    running = Running(
        slots=records["slot"].astype(np.int64),
        nodes=_rows(records["node"], nodes),
        versions=versions[is_current],
        started=records["started_at"].astype(np.int64),
        view=lambda row: _view(records[row], job),
    )
    return running, others


def _rows(ids: npt.NDArray[np.void], nodes: Nodes) -> Ints:
    """The row of each of these nodes, by the bytes of its id; -1 of one that is gone."""
    known: tuple[npt.NDArray[np.bytes_], Ints] | None = nodes.memo.get("rows")
    if known is None:
        every = np.array([UUID(it).bytes for it in nodes.index], dtype="V16").view("S16")
        order = np.argsort(every)
        known = every[order], order
        remember(nodes.memo, "rows", known)
    ordered, order = known
    if not len(order):
        return np.full(len(ids), -1)
    wanted = np.ascontiguousarray(ids).view("S16")
    at = np.minimum(np.searchsorted(ordered, wanted), len(order) - 1)
    return np.where(ordered[at] == wanted, order[at], -1)


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
