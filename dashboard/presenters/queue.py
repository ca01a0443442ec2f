"""The queue as a pipeline, the jobs of a state as rows, an evaluation as a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestrator.explain import reasons, wording
from orchestrator.explain.formatting import capitalised, capped, counted, duration, listed
from orchestrator.explain.wording import Sentence

from . import states
from .states import Shown

if TYPE_CHECKING:
    from dashboard.queries.queue import InState
    from orchestrator.broker import Standing
    from orchestrator.models import Evaluation, Job, WorkerProcess

_TRIGGERS = {
    "job-submit": "the job was submitted",
    "job-update": "the job was changed",
    "job-stop": "somebody asked to stop the job",
    "job-rerun": "somebody asked to run the job again",
    "job-scale": "the job was scaled",
    "execution-update": "an execution changed",
    "execution-failed": "an execution failed",
    "execution-timeout": "an execution ran too long",
    "job-timeout": "the job ran too long",
    "queue-timeout": "the job waited too long",
    "node-join": "a node joined",
    "node-change": "a node changed",
    "node-lost": "a node was lost",
    "node-drain": "a node drains",
    "capacity": "capacity became free",
    "retry": "the time to try again came",
    "schedule": "its scheduled time came",
    "operator": "an operator asked for it",
}

_STATES = {
    "ready": ("Ready", "may be taken by a worker at once", "waiting"),
    "leased": ("At work", "a worker evaluates them now", "running"),
    "waiting": ("Waiting", "wanted later, not now", "waiting"),
    "blocked": ("Blocked", "nothing fits; woken when capacity is freed", "blocked"),
    "dead": ("Dead letter", "failed again and again; parked", "failed"),
}


@dataclass(frozen=True, slots=True)
class StateBox:
    name: str
    title: str
    mean: str
    look: str
    n: str
    empty: bool
    oldest: datetime | None
    by_type: str


@dataclass(frozen=True, slots=True)
class Row:
    """A job in one state of the queue."""

    job: str
    name: str
    namespace: str
    type: str
    priority: int
    triggers: str
    since: datetime
    until: datetime | None
    worker: str
    deliveries: int
    detail: Sentence


@dataclass(frozen=True, slots=True)
class Line:
    """A finished or running evaluation in a list."""

    id: int
    job: str
    job_name: str
    shown: Shown
    triggers: str
    outcome: str
    at: datetime
    waited: str
    took: str
    worker: str
    delivery: int
    error: str


@dataclass(frozen=True, slots=True)
class Worker:
    name: str
    short: str
    look: str
    word: str
    seen: datetime
    evaluations: str


def state_box(name: str, found: InState, cap: int) -> StateBox:
    """One state of the queue with its count."""
    title, mean, look = _STATES[name]
    kinds = listed([f"{n:,} {kind}" for kind, n in sorted((found.by_type or {}).items())])
    return StateBox(
        name=name,
        title=title,
        mean=mean,
        look=look,
        n=capped(found.n, cap),
        empty=not found.n,
        oldest=found.oldest if found.n else None,
        by_type=kinds,
    )


def row(job: Job, found: Standing) -> Row:
    """A job of the queue."""
    has_end = found.state in ("leased", "waiting")
    return Row(
        job=str(job.pk),
        name=job.name,
        namespace=str(job.namespace_id),
        type=found.type,
        priority=found.priority,
        triggers=triggers(found.triggers) if found.triggers else "",
        since=found.since,
        until=found.until if has_end else None,
        worker=process(found.worker) if found.worker else "",
        deliveries=found.deliveries,
        detail=_detail(job, found),
    )


def line(evaluation: Evaluation, *, job_name: str = "") -> Line:
    """An evaluation for a list."""
    ended, since = evaluation.finished_at, evaluation.waited_since
    waited = (evaluation.leased_at - since).total_seconds() if since else None
    took = (ended - evaluation.leased_at).total_seconds() if ended else None
    return Line(
        id=evaluation.pk,
        job=str(evaluation.job_id),
        job_name=job_name,
        shown=states.evaluation(evaluation.state),
        triggers=capitalised(triggers(evaluation.triggers)),
        outcome=evaluation.outcome or evaluation.error.strip().rpartition("\n")[2],
        at=evaluation.leased_at,
        waited="" if waited is None else duration(waited),
        took="" if took is None else duration(took),
        worker=process(evaluation.worker),
        delivery=evaluation.delivery,
        error=evaluation.error,
    )


def triggers(counts: Mapping[str, Any] | Sequence[str]) -> str:
    """Why an evaluation was asked for, in words: ``a node joined, capacity became free``."""
    pairs = counts.items() if isinstance(counts, Mapping) else [(name, 1) for name in counts]
    said = []
    for name, n in pairs:
        words = _TRIGGERS.get(name, name.replace("-", " "))
        said.append(f"{words} ({n} times)" if isinstance(n, int) and n > 1 else words)
    return listed(said) or "it is looked at again"


def worker(found: WorkerProcess, now: datetime, late: float = 30.0) -> Worker:
    """A worker process, and whether it has been heard of lately."""
    silent = (now - found.seen_at).total_seconds() > late
    look, word = ("lost", "silent") if silent else ("ok", "alive")
    return Worker(
        found.name, process(found.name), look, word, found.seen_at, f"{found.evaluations:,}"
    )


def process(name: str) -> str:
    """The host and the process of a worker's name; what follows only makes the name unique."""
    return ":".join(name.split(":")[:2])


def _detail(job: Job, found: Standing) -> Sentence:
    if found.state == "dead":
        return (found.dead_letter or "",)
    if found.waits is not None:
        return wording.reason(found.waits.why)
    if found.state == "ready" and found.deliveries > 1:
        return (f"delivered {counted(found.deliveries, 'time')} without success",)
    return wording.all_of(reasons.of_job(job))
