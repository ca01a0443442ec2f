"""Executions and nodes, locked until the transaction ends, in the order of ``nodes.locks``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from nodes import readiness
from nodes.locks import Lock, lock_rows
from nodes.protocol.resources import DIMENSIONS, Resources
from orchestrator.lifecycle import Desired, Observed


@dataclass(slots=True)
class LockedExecution:
    """What moving an execution needs to know of it, true until the transaction ends.

    ``observed`` and ``reserved`` follow the `Changes` that are gathered of it.
    """

    id: UUID
    job: UUID
    node: UUID
    desired: Desired
    observed: Observed
    reserved: bool
    resources: Resources


@dataclass(slots=True)
class LockedNode:
    """What placing on a node needs to know of it, true until the transaction ends.

    ``closed`` says why it takes no new work, and is empty when it does.
    """

    id: UUID
    name: str
    closed: str
    order_rev: int
    free: Resources


def lock_executions(ids: Iterable[UUID]) -> dict[UUID, LockedExecution]:
    """Lock these executions, in the order of their ids, until the transaction ends."""
    rows = lock_rows(
        Lock.EXECUTIONS,
        ids,
        "id, job_id, node_id, desired, observed, reserved, cpu, memory, disk, gpu",
    )
    return {
        key: LockedExecution(
            key, job, node, Desired(desired), Observed(observed), reserved, Resources(*amounts)
        )
        for key, job, node, desired, observed, reserved, *amounts in rows
    }


def lock_nodes(ids: Iterable[UUID]) -> dict[UUID, LockedNode]:
    """Lock these nodes, in the order of their ids, until the transaction ends."""
    rows = lock_rows(
        Lock.NODES,
        ids,
        f"id, name, {', '.join(readiness.READY)}, order_rev, "
        + ", ".join(f"capacity_{d} - allocated_{d}" for d in DIMENSIONS),
    )
    return {
        key: LockedNode(key, name, _closed(rest), rest[_STATE], Resources(*rest[_STATE + 1 :]))
        for key, name, *rest in rows
    }


_STATE = len(readiness.READY)


def _closed(columns: Sequence[Any]) -> str:
    return readiness.sentence(dict(zip(readiness.READY, columns, strict=False)))


def execution_id(text: str) -> UUID | None:
    """The id that a node writes as *text*, or None when it is none of ours."""
    try:
        return UUID(text)
    except ValueError:
        return None
