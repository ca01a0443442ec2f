"""Jobs, executions and nodes by name, by id, or its beginning; what runs on nodes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from django.db import models
from django.db.models import Count, F, Q
from django.db.models.functions import Coalesce, Now

from nodes.membership.silence import SILENT_AFTER
from nodes.models import Node
from orchestrator.explain.errors import Ambiguous, NotFound, NotNamedInFull
from orchestrator.explain.reasons import NodeSilent
from orchestrator.lifecycle import ENDED, JobState, Observed
from orchestrator.models import Execution, Job
from orchestrator.models.access import DEFAULT

M = TypeVar("M", bound=models.Model)


def find_job(ref: str, jobs: models.QuerySet[Job], namespace: str | None = DEFAULT) -> Job:
    """The one of *jobs* that *ref* names, by name in *namespace*, or, with None, in any."""
    name = Q(name=ref) if namespace is None else Q(name=ref, namespace=namespace)
    return find(jobs, "job", ref, name)


def in_states(states: Sequence[str]) -> Q:
    """Jobs in one of these *states*, looked up by their outcome or among those that have none."""
    ended = [state for state in states if state in ENDED]
    live = Q(outcome__isnull=True, state__in=[state for state in states if state not in ENDED])
    if not ended:
        return live
    over = Q(outcome=ended[0]) if len(ended) == 1 else Q(outcome__in=ended)
    return over if len(ended) == len(states) else over | live


def find_execution(ref: str, executions: models.QuerySet[Execution]) -> Execution:
    """The one of *executions* that *ref* names; see ``find``."""
    return find(executions.select_related("job", "node"), "execution", ref)


def find_node(ref: str, *, removed: bool = False, whole: bool = False) -> Node:
    """The node that *ref* names; see ``find``.

    With *removed*, one that was removed, too: the newest of its name, when none has it now.
    With *whole*, no beginning: what cannot be taken back is done to what was named in full.
    """
    nodes = (Node.every if removed else Node.objects).order_by(LIVING_FIRST)
    found = find(nodes, "node", ref, Q(name=ref))
    if whole and ref != found.name and found.pk.hex != _digits(ref):
        raise NotNamedInFull(name=ref, kind="node", found=found.name)
    return found


#: The executions that run, by the node on which they do.
_RUNNING = Execution.objects.filter(reserved=True, observed=Observed.RUNNING)


def running_on(nodes: Sequence[Node]) -> dict[UUID, int]:
    """How many executions run on each of *nodes*; a node with none is left out."""
    rows = _RUNNING.filter(live__node__in=nodes)
    return dict(rows.values_list("live__node").annotate(n=Count("*")))


def counted_running(nodes: models.QuerySet[Node]) -> models.QuerySet[Node]:
    """*nodes*, each with how many executions are ``running`` on it, in the same query."""
    here = _RUNNING.filter(live__node=models.OuterRef("pk")).order_by().values("live__node")
    count = models.Subquery(here.annotate(n=Count("*")).values("n"))
    return nodes.annotate(running=Coalesce(count, 0))


#: Of all nodes that had a name, the one that has it comes first, then the newest.
LIVING_FIRST = F("removed_at").desc(nulls_first=True)


def find(rows: models.QuerySet[M], kind: str, ref: str, name: Q | None = None) -> M:
    """The one of *rows* with this id, which only one has and nobody can choose, or this *name*.

    The beginning of an id does, too, where nothing is called so and only one id begins so.
    Where several are called so, the first one is meant if *rows* are in an order.
    Raises NotFound or Ambiguous.
    """
    begins = begins_with(ref)
    is_whole = len(_digits(ref)) == LONGEST
    for which in (begins, name) if is_whole else (name, begins):
        some = list(rows.filter(which)[:2]) if which is not None else []
        if len(some) > 1 and (which is begins or not rows.ordered):
            raise Ambiguous(kind=kind, name=ref[:100])
        if some:
            return some[0]
    raise NotFound(kind=kind, name=ref[:100])


def begins_with(ref: str) -> Q | None:
    """Those whose id begins with *ref*; None where that spells no beginning of one."""
    digits = _digits(ref)
    if not SHORTEST <= len(digits) <= LONGEST or not set(digits) <= set("0123456789abcdef"):
        return None
    return Q(pk__gte=UUID(digits.ljust(32, "0")), pk__lte=UUID(digits.ljust(32, "f")))


SHORTEST, LONGEST = 4, 32
"""Digits of an id that name it."""


def _digits(ref: str) -> str:
    return ref.replace("-", "").lower()


def newest_first(rows: models.QuerySet[M], after: Sequence[str] | None) -> models.QuerySet[M]:
    """*rows* by ``-created_at, id``, after the place that ``place_in_time`` gave."""
    if after is not None:
        at, key = datetime.fromisoformat(after[0]), UUID(after[1])
        rows = rows.filter(created_at__lte=at)  # What the index can begin at.
        rows = rows.filter(Q(created_at__lt=at) | Q(pk__gt=key))
    return rows.order_by("-created_at", "pk")


def place_in_time(row: Any) -> list[str]:
    return [row.created_at.isoformat(), str(row.pk)]


def silent_nodes(job: Job, most: int = 3) -> list[NodeSilent]:
    """The nodes that hold something live of *job* and have not been heard of, longest first."""
    if job.state not in {JobState.QUEUED, JobState.RUNNING}:
        return []
    live = Execution.objects.filter(live__job=job, settled=False, ended_at=None)
    silent = live.filter(
        node__connection__in=["connected", "disconnected"],
        node__heartbeat__seen_at__lt=Now() - SILENT_AFTER,
    )
    found = silent.values_list("node__name", "node__heartbeat__seen_at").annotate(n=Count("*"))
    ordered = found.order_by("node__heartbeat__seen_at", "node__name")
    return [NodeSilent(name, since, n) for name, since, n in ordered[:most]]
