"""Jobs, executions and nodes by name, by id, or its beginning; the silent nodes of a job."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

from django.db import models
from django.db.models import Count, F
from django.db.models.functions import Now

from nodes.membership.silence import SILENT_AFTER
from nodes.models import Node
from orchestrator.explain.errors import Ambiguous, NotFound, NotNamedInFull
from orchestrator.explain.reasons import NodeSilent
from orchestrator.lifecycle import JobState
from orchestrator.models import Execution, Job

M = TypeVar("M", bound=models.Model)


def find_job(ref: str) -> Job:
    """The job of this name, id, or beginning of an id; raises NotFound or Ambiguous."""
    named = Job.objects.filter(name=ref).first()
    return named if named is not None else _by_id(Job.objects.all(), "job", ref)


def find_execution(ref: str) -> Execution:
    """The execution of this id, or beginning of one; raises NotFound or Ambiguous."""
    return _by_id(Execution.objects.select_related("job", "node"), "execution", ref)


def find_node(ref: str, *, removed: bool = False, whole: bool = False) -> Node:
    """The node of this name, id, or beginning of an id; raises NotFound or Ambiguous.

    With *removed*, one that was removed, too: the newest of its name, when none has it now.
    With *whole*, no beginning: what cannot be taken back is done to what was named in full.
    """
    nodes = (Node.every if removed else Node.objects).all()
    named = nodes.filter(name=ref).order_by(F("removed_at").desc(nulls_first=True)).first()
    if named is not None:
        return named
    found = _by_id(nodes, "node", ref)
    if whole and found.pk.hex != ref.replace("-", "").lower():
        raise NotNamedInFull(name=ref, kind="node", found=found.name)
    return found


def silent_nodes(job: Job, most: int = 3) -> list[NodeSilent]:
    """The nodes that hold something live of *job* and have not been heard of, longest first."""
    if job.state not in {JobState.QUEUED, JobState.RUNNING}:
        return []
    live = Execution.objects.filter(job=job, settled=False, ended_at=None)
    silent = live.filter(
        node__connection__in=["connected", "disconnected"],
        node__heartbeat__seen_at__lt=Now() - SILENT_AFTER,
    )
    found = silent.values_list("node__name", "node__heartbeat__seen_at").annotate(n=Count("*"))
    ordered = found.order_by("node__heartbeat__seen_at", "node__name")
    return [NodeSilent(name, since, n) for name, since, n in ordered[:most]]


def _by_id(rows: models.QuerySet[M], kind: str, ref: str) -> M:
    digits = ref.replace("-", "").lower()
    if not 4 <= len(digits) <= 32 or not set(digits) <= set("0123456789abcdef"):
        raise NotFound(kind=kind, name=ref[:100])
    first, last = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    found = list(rows.filter(pk__gte=first, pk__lte=last)[:2])
    if not found:
        raise NotFound(kind=kind, name=ref[:100])
    if len(found) > 1:
        raise Ambiguous(kind=kind, name=ref[:100])
    return found[0]
