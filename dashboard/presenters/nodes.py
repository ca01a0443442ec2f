"""Nodes in rows, and one node's head."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from nodes.protocol.resources import DIMENSIONS
from orchestrator.explain.formatting import amount, capitalised, counted, size

from . import states
from .bars import Capacity, capacity
from .states import Shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nodes.models import Node
    from orchestrator.models import Execution


@dataclass(frozen=True, slots=True)
class NodeLine:
    """``heard`` is None before the first heartbeat; ``verbs`` are what can be asked of it."""

    id: str
    name: str
    shown: Shown
    approval: str
    connection: str
    eligible: bool
    draining: bool
    bars: tuple[Capacity, ...]
    running: int
    heard: datetime | None
    since: datetime
    labels: tuple[tuple[str, str], ...]
    pending: bool
    rejected: bool
    quarantined: bool
    removed: bool


@dataclass(frozen=True, slots=True)
class NodeHead:
    line: NodeLine
    sentence: str
    facts: tuple[tuple[str, str], ...]
    removal: str


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds how much of a node's memory and cores."""

    id: str
    job: str
    job_name: str
    slot: int
    shown: Shown
    cpu: str
    memory: str
    width: float


def line(node: Node, running: int) -> NodeLine:
    """One node for a list, with the number of its *running* executions."""
    beat = getattr(node, "heartbeat", None)
    bars = tuple(bar for bar in capacities(node) if bar.name != "disk")
    return NodeLine(
        id=str(node.pk),
        name=node.name,
        shown=states.node(node),
        approval=node.approval,
        connection=node.connection,
        eligible=node.eligible,
        draining=node.draining,
        bars=bars,
        running=running,
        heard=beat.seen_at if beat else None,
        since=node.connection_since,
        labels=tuple(sorted((str(k), str(v)) for k, v in node.labels.items())),
        pending=node.approval == "pending",
        rejected=node.approval == "rejected",
        quarantined=bool(node.quarantined),
        removed=node.removed_at is not None,
    )


def head(node: Node, holds: int, running: int) -> NodeHead:
    """What stands above everything else on the page of a node that *holds* so many executions."""
    shown = states.node(node)
    said = f"{capitalised(shown.word)}: {shown.mean}" if shown.mean else capitalised(shown.word)
    sentence = f"{said}. It holds {counted(holds, 'execution')}."
    facts = sorted(
        (str(key), _fact(str(key), str(value))) for key, value in node.attributes.items()
    )
    return NodeHead(line(node, running), sentence, tuple(facts), _removal(node, holds))


def _removal(node: Node, holds: int) -> str:
    """What comes of removing the node, said before it is asked for."""
    if holds and node.connection != "lost":
        held = counted(holds, "execution")
        return f"It still holds {held}: stop their jobs, or drain it and wait, before you do."
    given_up = "What was lost on it is given up. " if holds else ""
    return f"{given_up}Its agent is turned away, its name is free, and its history stays."


def _fact(key: str, value: str) -> str:
    return size(int(value)) if key in {"memory", "disk"} and value.isdecimal() else value


def capacities(node: Node) -> tuple[Capacity, ...]:
    """What is allocated of every dimension that *node* has."""
    allocated, total = node.allocated.astuple(), node.capacity.astuple()
    return tuple(
        capacity(name, taken, of)
        for name, taken, of in zip(DIMENSIONS, allocated, total, strict=True)
        if of or name in {"cpu", "memory"}
    )


def holders(node: Node, held: Sequence[Execution]) -> list[Holder]:
    """The executions that hold resources of *node*, the largest first."""
    whole = max(node.capacity_memory, 1)
    return [
        Holder(
            id=str(execution.pk),
            job=str(execution.job_id),
            job_name=execution.job.name,
            slot=execution.slot,
            shown=states.execution(execution.desired, execution.observed),
            cpu=amount("cpu", execution.cpu),
            memory=amount("memory", execution.memory),
            width=round(min(100.0, 100 * execution.memory / whole), 2),
        )
        for execution in held
    ]
