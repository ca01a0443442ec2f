"""Rows as the API answers them."""

from __future__ import annotations

from typing import Any

from nodes import models as nodes
from orchestrator import models

from . import wording
from .schemas import Evaluation, Execution, Job, Named, Node, Resources


def job(row: models.Job, kind: type[Job] = Job, **more: Any) -> Job:
    return kind.of(row, sentence=wording.job(row), **more)


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
    heartbeat: nodes.NodeHeartbeat | None = getattr(row, "heartbeat", None)
    return Node.of(
        row,
        sentence=wording.node(row),
        capacity=Resources.of(row.capacity),
        allocated=Resources.of(row.allocated),
        running=heartbeat.running if heartbeat else 0,
        load=heartbeat.load if heartbeat else 0.0,
        seen_at=heartbeat.seen_at if heartbeat else None,
    )


def evaluation(
    row: models.Evaluation, kind: type[Evaluation] = Evaluation, **more: Any
) -> Evaluation:
    """*row* must have come with its job."""
    return kind.of(row, job=Named.of(row.job), **more)
