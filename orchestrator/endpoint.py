"""The Endpoint: the verbs that people may use.  What nodes say comes in through ``reports``.

Each verb is one transaction: the change, the journal, and the evaluation it asks for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import UUID

from django.contrib.auth.models import User
from django.db import IntegrityError, connection, models, transaction
from django.db.models import F
from django.db.models.functions import Now

from nodes import membership
from nodes.locks import Lock, lock_rows
from nodes.models import Node

from . import broker, drivers, journal, spec, stored
from .errors import AlreadyThere, Ambiguous, Conflict, NotFound
from .lifecycle import ENDED, JOB, JobState, Trigger
from .models import ClusterSetting, Execution, Job, JobVersion
from .removal import remove_node
from .reports import lock_whole_node, lose_locked, lose_silent, receive, reconnect

__all__ = [
    "Submitted",
    "approve_node",
    "find_execution",
    "find_job",
    "find_node",
    "lose_silent",
    "receive",
    "reconnect",
    "reject_node",
    "release_node",
    "remove_node",
    "rerun",
    "set_algorithm",
    "set_draining",
    "set_eligible",
    "stop",
    "submit",
    "submit_many",
]


M = TypeVar("M", bound=models.Model)


@dataclass(frozen=True, slots=True)
class Submitted:
    """What came of a submission.  When not ``changed``, the same specification was there.

    ``warnings`` are what is odd about it and no mistake, each with path, message and hint.
    """

    job: Job
    version: int
    created: bool
    changed: bool
    warnings: Sequence[dict[str, str]] = ()


def submit(
    job_spec: spec.JobSpec, *, actor: str, user: User | None = None, create_only: bool = False
) -> Submitted:
    """Make *job_spec* what its job should be: a new job, a new version, or no change at all."""
    return submit_many([job_spec], actor=actor, user=user, create_only=create_only)[0]


def submit_many(
    specs: Sequence[spec.JobSpec],
    *,
    actor: str,
    user: User | None = None,
    create_only: bool = False,
) -> list[Submitted]:
    """Submit all of *specs* or none, in one transaction; raises Conflict for a repeated name.

    With *create_only* it raises AlreadyThere when one of the jobs exists, also when somebody else
    creates it at this moment.
    """
    times = Counter(it.name for it in specs)
    repeated = sorted(name for name, n in times.items() if n > 1)
    if repeated:
        raise Conflict(detail=f"these names are given twice: {', '.join(repeated)}")
    try:
        with transaction.atomic():
            return _submit(specs, actor, user, create_only=create_only)
    except IntegrityError:
        # Somebody submitted the same new name at the same time: now it is there.
        with transaction.atomic():
            return _submit(specs, actor, user, create_only=create_only)


def stop(job_id: UUID, *, actor: str, reason: str = "") -> Job:
    """Ask that nothing of the job runs any longer.  Stopping what has ended changes nothing."""
    with transaction.atomic():
        job = _lock(job_id)
        if job.stop_requested or job.state in ENDED:
            return job
        job.stop_requested = True
        job.stop_reason = reason
        job.save(update_fields=["stop_requested", "stop_reason"])
        said = f": {reason}" if reason else ""
        journal.record(
            [
                journal.fact(
                    "job",
                    "stop",
                    f"{journal.who(actor)} stops {job.name}{said}",
                    actor=actor,
                    job=job.pk,
                )
            ]
        )
        broker.enqueue(job.pk, Trigger.JOB_STOP)
        return job


def rerun(job_id: UUID, *, actor: str) -> Job:
    """Begin a new round: what runs is stopped, and every slot is wanted again."""
    with transaction.atomic():
        job = _lock(job_id)
        _renew(job, fresh=True)
        job.save(update_fields=_RENEWED)
        sentence = f"{journal.who(actor)} reruns {job.name}"
        journal.record([journal.fact("job", "rerun", sentence, actor=actor, job=job.pk)])
        broker.enqueue(job.pk, Trigger.JOB_RERUN)
        return job


# --- nodes -----------------------------------------------------------------------------------


def approve_node(node_id: UUID, *, actor: str) -> Node:
    """Let the node take part; jobs that wait for capacity are looked at again."""
    with transaction.atomic():
        node = membership.approve(node_id, actor=actor)
        return _changed(node, "approve", f"{journal.who(actor)} approves", actor)


def reject_node(node_id: UUID, *, actor: str) -> Node:
    """Give the node no work and no secrets; what runs on it is lost."""
    with transaction.atomic():
        lock_rows(Lock.SESSIONS, [node_id], "epoch")  # Ended below; its lock comes first.
        live = lock_whole_node(node_id)
        lose_locked(live, reason=f"its node was rejected by {journal.who(actor)}")
        node = membership.reject(node_id, actor=actor)
        return _changed(node, "reject", f"{journal.who(actor)} rejects", actor)


def set_eligible(node_id: UUID, eligible: bool, *, actor: str, reason: str = "") -> Node:
    """Whether the node may get new work; what it has goes on."""
    verb = "makes eligible" if eligible else "makes ineligible"
    said = f" ({reason})" if reason else ""
    with transaction.atomic():
        node = membership.set_eligible(node_id, eligible, actor=actor)
        return _changed(node, "eligible", f"{journal.who(actor)} {verb}{said}", actor)


def set_draining(node_id: UUID, draining: bool, *, actor: str) -> Node:
    """Whether the node is being emptied: it gets no new work; batch work on it may finish."""
    verb = "drains" if draining else "ends the drain of"
    with transaction.atomic():
        node = membership.set_draining(node_id, draining, actor=actor)
        return _changed(node, "drain", f"{journal.who(actor)} {verb}", actor)


def release_node(node_id: UUID, *, actor: str) -> Node:
    """End the quarantine of a node that two agents seemed to be; it may connect again.

    Releasing one that is not quarantined changes nothing.
    """
    with transaction.atomic():
        lock_rows(Lock.SESSIONS, [node_id], "epoch")  # Changed below; its lock comes first.
        before = lock_rows(Lock.NODES, [node_id], "quarantined")
        node = membership.release(node_id, actor=actor)
        if before == [("",)]:
            return node
        sentence = f"{journal.who(actor)} ends the quarantine of"
        return _changed(node, "release", sentence, actor)


def _changed(node: Node, what: str, sentence: str, actor: str) -> Node:
    journal.record(
        [journal.fact("node", what, f"{sentence} {node.name}", actor=actor, node=node.pk)]
    )
    broker.capacity_freed([node.pk])
    return node


# --- the cluster -----------------------------------------------------------------------------


def set_algorithm(algorithm: str, *, actor: str) -> None:
    """Whether placement fills nodes (``binpack``) or spreads over them (``spread``).

    It counts for what is placed from now on; raises Conflict for any other word.
    """
    if algorithm not in ("binpack", "spread"):
        raise Conflict(detail=f"{algorithm!r} is no way to place: say binpack or spread")
    with transaction.atomic():
        ClusterSetting.objects.filter(pk=1).update(algorithm=algorithm)
        sentence = f"{journal.who(actor)} sets placement to {algorithm}"
        journal.record([journal.fact("cluster", "algorithm", sentence, actor=actor)])


# --- finding ---------------------------------------------------------------------------------


def find_job(ref: str) -> Job:
    """The job of this name, id, or beginning of an id; raises NotFound or Ambiguous."""
    named = Job.objects.filter(name=ref).first()
    return named if named is not None else _by_id(Job.objects.all(), "job", ref)


def find_execution(ref: str) -> Execution:
    """The execution of this id, or beginning of one; raises NotFound or Ambiguous."""
    return _by_id(Execution.objects.select_related("job", "node"), "execution", ref)


def find_node(ref: str, *, removed: bool = False) -> Node:
    """The node of this name, id, or beginning of an id; raises NotFound or Ambiguous.

    With *removed*, one that was removed, too: the newest of its name, when none has it now.
    """
    nodes = (Node.every if removed else Node.objects).all()
    named = nodes.filter(name=ref).order_by(F("removed_at").desc(nulls_first=True)).first()
    return named if named is not None else _by_id(nodes, "node", ref)


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


# --- submitting ------------------------------------------------------------------------------

_RENEWED = [
    "state",
    "reason",
    "stop_requested",
    "stop_reason",
    "round",
    "round_at",
    "progress",
    "tally",
]


def _submit(
    specs: Sequence[spec.JobSpec], actor: str, user: User | None, *, create_only: bool
) -> list[Submitted]:
    existing = {
        job.name: job
        for job in Job.objects.filter(name__in=[it.name for it in specs])
        .order_by("pk")
        .select_for_update(of=("self",), no_key=True)
    }
    if existing and create_only:
        raise AlreadyThere(name=min(existing))
    submitted = {it.job.name: it for it in _create(specs, existing, actor, user)}
    for it in specs:
        if it.name in existing:
            submitted[it.name] = _update(existing[it.name], it, actor, user)
    odd = drivers.warnings(specs)
    return [replace(submitted[it.name], warnings=odd[at]) for at, it in enumerate(specs)]


def _create(
    specs: Iterable[spec.JobSpec], existing: dict[str, Job], actor: str, user: User | None
) -> list[Submitted]:
    new = [(it, Job(**_columns(it), created_by=user)) for it in specs if it.name not in existing]
    if not new:
        return []
    _insert(new, actor, user)
    journal.record(
        journal.fact(
            "job", "submit", f"{journal.who(actor)} submits {job.name}", actor=actor, job=job.pk
        )
        for _, job in new
    )
    broker.enqueue([job.pk for _, job in new], Trigger.JOB_SUBMIT)
    return [Submitted(job, 1, created=True, changed=True) for _, job in new]


def _insert(new: Sequence[tuple[spec.JobSpec, Job]], actor: str, user: User | None) -> None:
    """Write the new jobs with their first versions, in one statement however many they are.

    Each is a microsecond younger than the one before it, so that lists keep their order.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH given AS MATERIALIZED (
                SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::smallint[],
                                     %s::int[], %s::jsonb[], %s::jsonb[], %s::text[])
                    WITH ORDINALITY
                    AS g(id, name, type, priority, count, labels, spec, digest, number)),
            job AS (
                INSERT INTO orchestrator_job (
                    id, name, type, priority, version, oldest_version, round, state, reason,
                    stop_requested, stop_reason, count, progress, tally, labels, rev, created_by_id,
                    created_at)
                SELECT id, name, type, priority, 1, 1, 1, %s, '', false, '', count, '{}', '{}',
                       labels, 1, %s, now() + (number - 1) * interval '1 microsecond'
                FROM given ORDER BY name
                RETURNING id, created_at, round_at, updated_at),
            version AS (
                INSERT INTO orchestrator_jobversion
                    (job_id, number, spec, digest, actor, created_by_id)
                SELECT id, 1, spec, digest, %s, %s FROM given)
            SELECT * FROM job
            """,
            [
                [job.pk for _, job in new],
                [job.name for _, job in new],
                [str(job.type) for _, job in new],
                [job.priority for _, job in new],
                [job.count for _, job in new],
                [json.dumps(job.labels) for _, job in new],
                [json.dumps(spec.canonical(it)) for it, _ in new],
                [spec.digest(it) for it, _ in new],
                str(JOB.initial),
                user.pk if user is not None else None,
                actor,
                user.pk if user is not None else None,
            ],
        )
        stamps = {key: rest for key, *rest in cursor.fetchall()}
    for _, job in new:
        job.created_at, job.round_at, job.updated_at = stamps[job.pk]
        job._state.adding = False


def _update(job: Job, new: spec.JobSpec, actor: str, user: User | None) -> Submitted:
    current = JobVersion.objects.get(job=job, number=job.version)
    if current.digest == spec.digest(new) and not (job.stop_requested or job.state == "stopped"):
        return Submitted(job, job.version, created=False, changed=False)
    now = (job.pk, job.version)
    replaces = spec.replaces(stored.specs([now])[now], new)
    stopped = job.stop_requested or job.state == JobState.STOPPED
    job.version += 1
    for name, value in _columns(new).items():
        setattr(job, name, value)
    if replaces:
        job.oldest_version = job.version
    _renew(job, fresh=replaces or stopped)
    job.save(update_fields=[*_columns(new), "version", "oldest_version", *_RENEWED])
    JobVersion.objects.bulk_create([_version(job, job.version, new, actor, user)])
    sentence = f"{journal.who(actor)} submits version {job.version} of {job.name}"
    journal.record([journal.fact("job", "update", sentence, actor=actor, job=job.pk)])
    broker.enqueue(job.pk, Trigger.JOB_UPDATE)
    return Submitted(job, job.version, created=False, changed=True)


def _renew(job: Job, *, fresh: bool) -> None:
    """Bring the job back to pending; *fresh* forgets what its slots have achieved."""
    job.state = JobState.PENDING
    job.reason = ""
    job.stop_requested = False
    job.stop_reason = ""
    if fresh:
        job.round += 1
        job.progress = {}
        job.tally = {}
    job.round_at = Now()


def _columns(it: spec.JobSpec) -> dict[str, Any]:
    return {
        "name": it.name,
        "type": str(it.type),
        "priority": it.priority,
        "count": it.count,
        "labels": dict(it.labels),
    }


def _version(job: Job, number: int, it: spec.JobSpec, actor: str, user: User | None) -> JobVersion:
    return JobVersion(
        job=job,
        number=number,
        spec=spec.canonical(it),
        digest=spec.digest(it),
        actor=actor,
        created_by=user,
    )


def _lock(job_id: UUID) -> Job:
    if not lock_rows(Lock.JOBS, [job_id], "id"):
        raise NotFound(kind="job", name=str(job_id))
    return Job.objects.get(pk=job_id)
