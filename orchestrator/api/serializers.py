"""Rows as the API answers them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.utils import timezone

from nodes import models as nodes
from orchestrator import models
from orchestrator.endpoint import running_on
from orchestrator.explain import reasons, wording
from orchestrator.explain.reasons import Reason
from orchestrator.models import not_kept as gone

from .schemas import Evaluation, Execution, Job, Named, NamedJob, Node, NotKept, Resources, Version


def job(row: models.Job, kind: type[Job] = Job, *, also: Iterable[Reason] = (), **more: Any) -> Job:
    """*also* are reasons that are looked up for one job, not for every one of a list."""
    found = (*reasons.of_job(row), *also)
    return kind.of(
        row,
        sentence=wording.text(wording.job(row, also)),
        reason=wording.text(wording.all_of(found)),
        reasons=[{"cause": reasons.cause(it), **reasons.dump([it])[0]} for it in found],
        **more,
    )


def not_kept(job: models.Job) -> NotKept | None:
    found = gone.of_job(job, timezone.now())
    return NotKept.of(found) if found.sentence else None


def version(row: models.JobVersion, name: str) -> Version:
    """*name* is that of its job."""
    return Version.of(row, spec=row.in_full(name=name))


def execution(row: models.Execution, kind: type[Execution] = Execution, **more: Any) -> Execution:
    """*row* must have come with its job and its node."""
    return kind.of(
        row,
        job=NamedJob.of(row.job),
        node=Named.of(row.node),
        sentence=wording.execution(row),
        resources=Resources.of(row.resources),
        **more,
    )


def node(row: nodes.Node) -> Node:
    """What runs on it is counted here, unless *row* has come `counted_running`."""
    heartbeat: nodes.NodeHeartbeat | None = getattr(row, "heartbeat", None)
    running: int | None = getattr(row, "running", None)
    return Node.of(
        row,
        sentence=wording.node(row),
        capacity=Resources.of(row.capacity),
        offered=Resources.of(row.advertised),
        allocated=Resources.of(row.allocated),
        running=running_on([row]).get(row.pk, 0) if running is None else running,
        load=heartbeat.load if heartbeat else 0.0,
        seen_at=heartbeat.seen_at if heartbeat else None,
    )


def evaluation(
    row: models.Evaluation, kind: type[Evaluation] = Evaluation, **more: Any
) -> Evaluation:
    """*row* must have come with its job."""
    return kind.of(row, job=NamedJob.of(row.job), **more)
