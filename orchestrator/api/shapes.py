"""Rows as the API shows them.  These shapes are a promise: fields are added, never changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nodes.models import Node, NodeHeartbeat
from nodes.protocol.resources import Resources
from orchestrator import wording as said
from orchestrator.models import (
    Evaluation,
    Event,
    Execution,
    ExecutionHistory,
    ExecutionOutput,
    Job,
    JobVersion,
)
from orchestrator.reasons import Reason, cause, dump, load

from . import wording


def job(row: Job, also: Iterable[Reason] = ()) -> dict[str, Any]:
    """*also* are reasons that are looked up for one job, not for every one of a list."""
    found = (*load(row.reason), *also)
    return {
        "id": row.pk,
        "name": row.name,
        "type": row.type,
        "state": row.state,
        "sentence": said.text(said.job(row, also)),
        "reason": said.text(said.all_of(found)),
        "reasons": [
            {**it, "cause": cause(one)} for one, it in zip(found, dump(found), strict=True)
        ],
        "priority": row.priority,
        "count": row.count,
        "version": row.version,
        "round": row.round,
        "labels": row.labels,
        "tally": row.tally,
        "stop_requested": row.stop_requested,
        "stop_reason": row.stop_reason,
        "stopped_by": row.stopped_by,
        "rev": row.rev,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "ended_at": row.ended_at,
    }


def version(row: JobVersion) -> dict[str, Any]:
    return {
        "number": row.number,
        "digest": row.digest,
        "actor": row.actor,
        "created_at": row.created_at,
        "spec": row.spec,
    }


def execution(row: Execution) -> dict[str, Any]:
    """*row* must have come with its job and its node."""
    return {
        "id": row.pk,
        "job": {"id": row.job_id, "name": row.job.name},
        "node": {"id": row.node_id, "name": row.node.name},
        "slot": row.slot,
        "attempt": row.attempt,
        "version": row.version,
        "round": row.round,
        "desired": row.desired,
        "observed": row.observed,
        "sentence": wording.execution(row),
        "evaluation": row.evaluation_id,
        "resources": resources(row.resources),
        "exit_code": row.exit_code,
        "code": row.code,
        "message": row.message,
        "hint": row.hint,
        "retryable": row.retryable,
        "ran": row.ran,
        "rev": row.rev,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
    }


def transition(row: ExecutionHistory) -> dict[str, Any]:
    return {
        "rev": row.rev,
        "lane": row.lane,
        "before": row.before,
        "after": row.after,
        "writer": row.writer,
        "actor": row.actor,
        "reason": row.reason,
        "at": row.at,
    }


def output(row: ExecutionOutput) -> dict[str, Any]:
    return {
        "stdout": row.stdout,
        "stderr": row.stderr,
        "stdout_size": row.stdout_size,
        "stderr_size": row.stderr_size,
    }


def node(row: Node) -> dict[str, Any]:
    heartbeat: NodeHeartbeat | None = getattr(row, "heartbeat", None)
    return {
        "id": row.pk,
        "name": row.name,
        "sentence": wording.node(row),
        "approval": row.approval,
        "connection": row.connection,
        "connection_since": row.connection_since,
        "eligible": row.eligible,
        "draining": row.draining,
        "quarantined": row.quarantined,
        "labels": row.labels,
        "attributes": row.attributes,
        "capacity": resources(row.capacity),
        "allocated": resources(row.allocated),
        "running": heartbeat.running if heartbeat else 0,
        "load": heartbeat.load if heartbeat else 0.0,
        "seen_at": heartbeat.seen_at if heartbeat else None,
        "rev": row.rev,
        "created_at": row.created_at,
    }


def evaluation(row: Evaluation) -> dict[str, Any]:
    """*row* must have come with its job."""
    return {
        "id": row.pk,
        "job": {"id": row.job_id, "name": row.job.name},
        "type": row.type,
        "priority": row.priority,
        "state": row.state,
        "triggers": row.triggers,
        "delivery": row.delivery,
        "worker": row.worker,
        "outcome": row.outcome,
        "error": row.error,
        "waited_since": row.waited_since,
        "leased_at": row.leased_at,
        "finished_at": row.finished_at,
    }


def event(row: Event) -> dict[str, Any]:
    return {
        "id": row.pk,
        "at": row.at,
        "topic": row.topic,
        "what": row.what,
        "actor": row.actor,
        "message": row.message,
        "job": row.job_id,
        "execution": row.execution_id,
        "node": row.node_id,
        "data": row.data,
    }


def resources(amount: Resources) -> dict[str, int]:
    """Cpu in millicores, memory and disk in bytes, gpu in devices."""
    return {
        "cpu": amount.cpu,
        "memory": amount.memory,
        "disk": amount.disk,
        "gpu": amount.gpu,
    }
