"""Worlds that differ from the ordinary only in what a test says."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from orchestrator import spec
from orchestrator.lifecycle import Desired, JobState, Observed
from orchestrator.scheduling.intent import Intent
from orchestrator.scheduling.plan import Plan
from orchestrator.scheduling.running import microseconds
from orchestrator.scheduling.world import (
    ExecutionView,
    JobView,
    Nodes,
    Progress,
    Room,
    Running,
    World,
)

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
MIB, GIB = 2**20, 2**30
_ids = itertools.count(1)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def node(
    name: str,
    *,
    cpu: int = 4000,
    memory: int = 8 * GIB,
    disk: int = 100 * GIB,
    gpu: int = 0,
    used: Sequence[int] = (0, 0, 0, 0),
    unready: str = "",
    **labels: str,
) -> dict[str, Any]:
    return {
        "name": name,
        "capacity": (cpu, memory, disk, gpu),
        "used": tuple(used),
        "unready": unready,
        "labels": {"node.driver.process": "true", **labels},
    }


def cluster(*nodes: dict[str, Any] | str) -> Room:
    rows = [node(it) if isinstance(it, str) else it for it in nodes]
    capacity = np.array([row["capacity"] for row in rows], dtype=np.int64).reshape(-1, 4)
    known = Nodes(
        ids=[row["name"] for row in rows],
        names=[row["name"].upper() for row in rows],
        labels=[row["labels"] for row in rows],
        capacity=capacity,
        offered=capacity.copy(),
        ready=np.array([not row["unready"] for row in rows], dtype=np.bool_),
        unready=[row["unready"] for row in rows],
    )
    used = np.array([row["used"] for row in rows], dtype=np.int64).reshape(-1, 4)
    return Room(known, used)


def job_spec(**differing: Any) -> spec.JobSpec:
    resources = differing.pop("resources", {})
    task = {"command": ["true"], "resources": resources, **differing.pop("task", {})}
    return spec.parse({"name": "job", "task": task, **differing})


def intent(wanted: spec.JobSpec, **differing: Any) -> Intent:
    """What people want of a job that they have just submitted so."""
    ordinary = {
        "state": JobState.PENDING,
        "version": 1,
        "digest": spec.digest(wanted),
        "generation": spec.generation(wanted),
        "round": 1,
        "count": wanted.count,
        "priority": wanted.priority,
        "labels": wanted.labels,
    }
    return Intent(**{**ordinary, **differing})


#: What an execution in this observed state is usually wanted to be.
_DESIRED: Mapping[Observed, Desired] = {
    Observed.NEW: Desired.PENDING,
    Observed.ASK_FOR_BID: Desired.PENDING,
    Observed.ASK_FOR_BID_ACCEPTED: Desired.PENDING,
    Observed.BID_ACCEPTED: Desired.RUNNING,
    Observed.PREPARING: Desired.RUNNING,
    Observed.RUNNING: Desired.RUNNING,
    Observed.PUBLISHING: Desired.RUNNING,
}


def execution(observed: str, slot: int = 0, **differing: Any) -> ExecutionView:
    state = Observed(observed)
    ran = state in {Observed.RUNNING, Observed.COMPLETED, Observed.FAILED, Observed.LOST}
    ordinary: dict[str, Any] = {
        "id": f"e{next(_ids):06}",
        "node": "n1",
        "attempt": 1,
        "version": 1,
        "generation": "one",
        "round": 1,
        "desired": _DESIRED.get(state, Desired.STOPPED),
        "created_at": NOW - seconds(60),
        "started_at": NOW - seconds(50) if ran else None,
        "ended_at": NOW if state not in _DESIRED else None,
    }
    return ExecutionView(slot=slot, observed=state, **{**ordinary, **differing})


def world(
    *executions: ExecutionView,
    nodes: Sequence[dict[str, Any] | str] | Room = ("n1", "n2", "n3", "n4"),
    now: datetime = NOW,
    algorithm: str = "binpack",
    progress: Progress | None = None,
    state: JobState = JobState.PENDING,
    view: Mapping[str, Any] | None = None,
    **job: Any,
) -> World:
    wanted = job_spec(**job)
    ordinary = {
        "id": "j1",
        "name": "job",
        "spec": wanted,
        "count": wanted.count,
        "version": 1,
        "generation": "one",
        "round": 1,
        "state": state,
        "submitted_at": NOW - seconds(60),
        "progress": progress or Progress(),
    }
    return World(
        job=JobView(**{**ordinary, **(view or {})}),
        executions=tuple(sorted(executions, key=lambda it: it.id)),
        room=nodes if isinstance(nodes, Room) else cluster(*nodes),
        now=now,
        algorithm=algorithm,
    )


def in_columns(of: World) -> World:
    """The same world, with all in columns that runs as it was told: as large jobs are read."""
    told = {it.slot: it for it in of.executions if _runs_as_told(of, it)}
    columns = list(told.values())
    rest = tuple(it for it in of.executions if it not in columns)
    numbers = np.array(
        [
            (
                it.slot,
                of.nodes.index.get(it.node, -1),
                it.version,
                microseconds(it.started_at or of.now),
            )
            for it in columns
        ],
        dtype=np.int64,
    ).reshape(-1, 4)
    return replace(of, executions=rest, running=Running(*numbers.T, columns.__getitem__))


def _runs_as_told(of: World, it: ExecutionView) -> bool:
    plain = ExecutionView(
        **{name: getattr(it, name) for name in ("id", "node", "slot", "attempt", "version")},
        generation=of.job.generation,
        round=of.job.round,
        desired=Desired.RUNNING,
        observed=Observed.RUNNING,
        created_at=it.created_at,
        started_at=it.started_at,
    )
    return it == plain and it.started_at is not None


def unordered(plan: Plan) -> Plan:
    """*plan*, whatever the order in which it says what is done at once."""
    return replace(
        plan,
        stop=tuple(sorted(plan.stop, key=lambda it: it.execution)),
        approve=tuple(sorted(plan.approve)),
        settle=tuple(sorted(plan.settle)),
    )
