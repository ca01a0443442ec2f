"""Rows as the API answers them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nodes import models as nodes
from orchestrator import models
from orchestrator.endpoint import running_on
from orchestrator.explain import reasons, wording
from orchestrator.explain.reasons import Reason

from .schemas import Evaluation, Execution, Job, Named, Node, Resources


def job(row: models.Job, kind: type[Job] = Job, *, also: Iterable[Reason] = (), **more: Any) -> Job:
    """*also* are reasons that are looked up for one job, not for every one of a list."""
    found = (*reasons.load(row.reason), *also)
    return kind.of(
        row,
        sentence=wording.text(wording.job(row, also)),
        reason=wording.text(wording.all_of(found)),
        reasons=[{"cause": reasons.cause(it), **reasons.dump([it])[0]} for it in found],
        **more,
    )


def execution(row: models.Execution, kind: type[Execution] = Execution, **more: Any) -> Execution:
    """*row* must have come with its job and its node."""
    return kind.of(
        row,
        job=Named.of(row.job),
        node=Named.of(row.node),
        sentence=wording.execution(row),
        resources=Resources.of(row.resources),
        **more,
    )


def node(row: nodes.Node) -> Node:
    [shown] = several_nodes([row])
    return shown


def several_nodes(rows: Sequence[nodes.Node]) -> list[Node]:
    """What runs on all of them is counted at once."""
    running = running_on(rows)
    return [_node(row, running.get(row.pk, 0)) for row in rows]


def _node(row: nodes.Node, running: int) -> Node:
    heartbeat: nodes.NodeHeartbeat | None = getattr(row, "heartbeat", None)
    return Node.of(
        row,
        sentence=wording.node(row),
        capacity=Resources.of(row.capacity),
        allocated=Resources.of(row.allocated),
        running=running,
        load=heartbeat.load if heartbeat else 0.0,
        seen_at=heartbeat.seen_at if heartbeat else None,
    )


def evaluation(
    row: models.Evaluation, kind: type[Evaluation] = Evaluation, **more: Any
) -> Evaluation:
    """*row* must have come with its job."""
    return kind.of(row, job=Named.of(row.job), **more)
