"""Rows that were never stored, for presenters: each call says only what differs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from nodes.models import Node
from nodes.protocol.resources import Resources
from orchestrator.broker import QueueState, Standing, Waits
from orchestrator.explain.reasons import NoRoom, Shortage
from orchestrator.models import Execution, ExecutionHistory, Job

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def job(**differing: Any) -> Job:
    ordinary = {"id": UUID(int=1), "name": "etl", "type": "batch", "created_at": NOON}
    return Job(**{**ordinary, "round_at": NOON, **differing})


def node(**differing: Any) -> Node:
    ordinary = {
        "id": UUID(int=2), "name": "c-01", "approval": "approved", "connection": "connected",
        "connection_since": NOON, "created_at": NOON, "capacity_cpu": 4000,
        "capacity_memory": 8 * 2**30,
    }  # fmt: skip
    row = Node(**{**ordinary, **differing})
    row._state.fields_cache["heartbeat"] = None  # As select_related leaves it.
    return row


def standing(of: Job, state: str, **differing: Any) -> Standing:
    ordinary = {"type": of.type, "priority": of.priority, "since": NOON}
    return Standing(job=of.pk, state=QueueState(state), **{**ordinary, **differing})


def blocked(of: Job, why: Shortage | None = None, **differing: Any) -> Standing:
    waits = Waits(Resources(cpu=2000), why=why or NoRoom(2, {"cpu": 2000}))
    return standing(of, "blocked", waits=waits, **differing)


def execution(**differing: Any) -> Execution:
    ordinary = {
        "id": UUID(int=3), "job": job(), "node": node(), "version": 1, "slot": 0, "order_rev": 1,
        "created_at": NOON, "desired": "running", "observed": "running",
    }  # fmt: skip
    return Execution(**{**ordinary, **differing})


def history(steps: Iterable[tuple[float, str, str, str]]) -> list[ExecutionHistory]:
    """Rows from (seconds, lane, state, writer); a writer may be followed by its actor."""
    rows, before = [], {"desired": "", "observed": ""}
    for rev, (seconds, lane, after, who) in enumerate(steps, 1):
        writer, _, actor = who.partition(" ")
        rows.append(
            ExecutionHistory(
                execution_id=UUID(int=3), rev=rev, lane=lane, before=before[lane], after=after,
                writer=writer, actor=actor, at=at(seconds),
            )
        )  # fmt: skip
        before[lane] = after
    return rows


BIDDING = (
    (0, "desired", "pending", "state-updater"),
    (0, "observed", "new", "state-updater"),
    (0.01, "observed", "ask_for_bid", "compute-forwarder"),
    (0.02, "observed", "ask_for_bid_accepted", "endpoint node:c-01"),
    (0.03, "desired", "running", "state-updater"),
    (0.04, "observed", "bid_accepted", "compute-forwarder"),
    (0.05, "observed", "running", "endpoint node:c-01"),
    (12, "observed", "completed", "endpoint node:c-01"),
    (12, "desired", "stopped", "endpoint node:c-01"),
)
