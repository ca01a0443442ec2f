"""The verbs of jobs: submit, stop, rerun."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models import Q
from django.db.models.functions import Now

from nodes.locks import Lock, lock_rows
from orchestrator import broker, spec
from orchestrator.explain.errors import AlreadyThere, Conflict, NotFound
from orchestrator.explain.formatting import person
from orchestrator.lifecycle import ENDED, JOB, JobState, Trigger
from orchestrator.models import Job, JobVersion, journal
from orchestrator.models.access import DEFAULT
from orchestrator.scheduling import intent

from . import spec_warnings
from .namespaces import hold_namespaces


@dataclass(frozen=True, slots=True)
class Submitted:
    """What came of a submission.  When not ``changed``, the same specification was there.

    ``change`` says in words what differs beside the version.  ``rerun`` says that every
    slot runs again, also those that have completed.  ``warnings`` are what is odd about it and no
    mistake, each with path, message and hint.
    """

    job: Job
    version: int
    created: bool
    changed: bool
    change: str = ""
    rerun: bool = False
    warnings: Sequence[dict[str, str]] = ()


def anybody(_job: Job) -> None:
    """May replace it."""


def submit(
    job_spec: spec.JobSpec,
    *,
    actor: str,
    user: User | None = None,
    create_only: bool = False,
    permit: Callable[[Job], None] = anybody,
) -> Submitted:
    """Make *job_spec* what its job should be: a new job, a new version, or no change at all."""
    specs = [job_spec]
    return submit_many(specs, actor=actor, user=user, create_only=create_only, permit=permit)[0]


def submit_many(
    specs: Sequence[spec.JobSpec],
    *,
    actor: str,
    user: User | None = None,
    create_only: bool = False,
    rerun: bool = False,
    permit: Callable[[Job], None] = anybody,
) -> list[Submitted]:
    """Submit all of *specs* or none, in one transaction; raises Conflict for a repeated name.

    Each goes into the namespace that it names.  *permit* raises for a job that is there, and may
    not be replaced.

    With *rerun* every slot of a job that has ended runs again, also when nothing else changes.
    With *create_only* it raises AlreadyThere when one of the jobs exists, also when somebody else
    creates it at this moment.
    """
    times = Counter(map(_key, specs))
    repeated = sorted(name for (_, name), n in times.items() if n > 1)
    if repeated:
        raise Conflict(detail=f"these names are given twice: {', '.join(repeated)}")
    try:
        with transaction.atomic():
            return _submit(specs, actor, user, permit, create_only=create_only, rerun=rerun)
    except IntegrityError:
        # Somebody submitted the same new name at the same time: now it is there.
        with transaction.atomic():
            return _submit(specs, actor, user, permit, create_only=create_only, rerun=rerun)


def stop(job_id: UUID, *, actor: str, reason: str = "") -> Job:
    """Ask that nothing of the job runs any longer.  Stopping what has ended changes nothing."""
    with transaction.atomic():
        job = _lock(job_id)
        if job.stop_requested or job.state in ENDED:
            return job
        job.stop_requested = True
        job.stop_reason = reason
        job.stopped_by = actor
        job.save(update_fields=["stop_requested", "stop_reason", "stopped_by"])
        said = f": {reason}" if reason else ""
        journal.record(
            [
                journal.fact(
                    "job",
                    "stop",
                    f"{person(actor)} stops {job.name}{said}",
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
        _run_again(job)
        job.round += 1
        _save(job)
        _tell_rerun(job, actor)
        return job


def _run_again(job: Job) -> None:
    job.stop_requested, job.stop_reason, job.stopped_by = False, "", ""
    job.round_at = Now()


def _tell_rerun(job: Job, actor: str) -> None:
    sentence = f"{person(actor)} reruns {job.name}"
    journal.record([journal.fact("job", "rerun", sentence, actor=actor, job=job.pk)])
    broker.enqueue(job.pk, Trigger.JOB_RERUN)


def _save(job: Job) -> None:
    """Write what is wanted of *job*, and read what the database has made of the rest."""
    job.save(update_fields=_INTENT)
    made = ("state", "reason", "tally", "ended_at", "round_at", "intent_rev", "rev")
    job.refresh_from_db(fields=made)


#: What people want of a job; how it stands is written by the StateUpdater alone.
_INTENT = [
    *("type", "version", "count", "priority", "labels", "round", "round_at"),
    *("stop_requested", "stop_reason", "stopped_by"),
]


def _submit(
    specs: Sequence[spec.JobSpec],
    actor: str,
    user: User | None,
    permit: Callable[[Job], None],
    *,
    create_only: bool,
    rerun: bool,
) -> list[Submitted]:
    existing = _existing(specs)
    if existing and create_only:
        raise AlreadyThere(name=min(job.name for job in existing.values()))
    for job in existing.values():
        permit(job)
    new = [it for it in specs if _key(it) not in existing]
    submitted = {(str(it.job.namespace_id), it.job.name): it for it in _create(new, actor, user)}
    for it in specs:
        if (there := existing.get(_key(it))) is not None:
            submitted[_key(it)] = _update(there, it, actor, user, rerun=rerun)
    odd = spec_warnings.warnings(specs)
    return [replace(submitted[_key(it)], warnings=odd[at]) for at, it in enumerate(specs)]


def _key(it: spec.JobSpec) -> tuple[str, str]:
    return it.namespace or DEFAULT, it.name


def _existing(specs: Sequence[spec.JobSpec]) -> dict[tuple[str, str], Job]:
    """Those of the jobs that are there, locked."""
    names: dict[str, list[str]] = {}
    for namespace, name in map(_key, specs):
        names.setdefault(namespace, []).append(name)
    wanted = [Q(namespace=namespace, name__in=them) for namespace, them in sorted(names.items())]
    rows = Job.objects.filter(reduce(or_, wanted)).order_by("pk") if wanted else Job.objects.none()
    locked = rows.select_for_update(of=("self",), no_key=True)
    return {(str(job.namespace_id), job.name): job for job in locked}


def _create(specs: Sequence[spec.JobSpec], actor: str, user: User | None) -> list[Submitted]:
    if not specs:
        return []
    hold_namespaces(namespace for namespace, _ in map(_key, specs))
    new = [
        (it, Job(namespace_id=_key(it)[0], name=it.name, **_columns(it), created_by=user))
        for it in specs
    ]
    _insert(new, actor, user)
    journal.record(
        journal.fact(
            "job", "submit", f"{person(actor)} submits {job.name}", actor=actor, job=job.pk
        )
        for _, job in new
    )
    broker.enqueue([job.pk for _, job in new], Trigger.JOB_SUBMIT)
    return [Submitted(job, 1, created=True, changed=True) for _, job in new]


def _insert(new: Sequence[tuple[spec.JobSpec, Job]], actor: str, user: User | None) -> None:
    """Write the new jobs with their first versions, in one statement however many they are.

    Each is a microsecond younger than the one before it, so that lists keep their order.
    """
    specs = [spec.stored(it) for it, _ in new]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH given AS MATERIALIZED (
                SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::smallint[],
                                     %s::int[], %s::jsonb[], %s::jsonb[], %s::text[], %s::text[])
                    WITH ORDINALITY
                    AS g(id, namespace, name, type, priority, count, labels, spec, digest,
                         generation, number)),
            job AS (
                INSERT INTO orchestrator_job (
                    id, namespace_id, name, type, priority, version, round, intent_rev,
                    seen_intent, state, reason, stop_requested, stop_reason, count, progress,
                    tally, labels, rev, created_by_id, created_at)
                SELECT id, namespace, name, type, priority, 1, 1, 1, 0, %s, '[]', false, '', count,
                       '{}', '{}', labels, 1, %s, now() + (number - 1) * interval '1 microsecond'
                FROM given ORDER BY namespace, name
                RETURNING id, created_at, round_at, updated_at),
            version AS (
                INSERT INTO orchestrator_jobversion
                    (job_id, number, spec, digest, generation, actor, created_by_id)
                SELECT id, 1, spec, digest, generation, %s, %s FROM given)
            SELECT * FROM job
            """,
            [
                [job.pk for _, job in new],
                [job.namespace_id for _, job in new],
                [job.name for _, job in new],
                [str(job.type) for _, job in new],
                [job.priority for _, job in new],
                [job.count for _, job in new],
                [json.dumps(job.labels) for _, job in new],
                [json.dumps(it.body) for it in specs],
                [it.digest for it in specs],
                [it.generation for it in specs],
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


def _update(
    job: Job, new: spec.JobSpec, actor: str, user: User | None, *, rerun: bool
) -> Submitted:
    done = intent.submit(_intent(job), new, rerun=rerun)
    if not done.is_change:
        return Submitted(job, job.version, created=False, changed=False)
    runs_again = done.intent.round > job.round
    for name, value in _columns(new).items():
        setattr(job, name, value)
    job.version, job.round = done.intent.version, done.intent.round
    if done.renewed:
        _run_again(job)
    _save(job)
    if done.is_new_version:
        JobVersion.objects.bulk_create([_version(job, done.intent, new, actor, user)])
        said = f"submits version {job.version} of {job.name}"
    elif done.change:
        said = f"changes {job.name}: {done.change}"
    else:
        _tell_rerun(job, actor)
        return Submitted(job, job.version, created=False, changed=False, rerun=True)
    fact = journal.fact("job", "update", f"{person(actor)} {said}", actor=actor, job=job.pk)
    journal.record([fact])
    broker.enqueue(job.pk, Trigger.JOB_UPDATE)
    return Submitted(
        job, job.version, created=False, changed=True, change=done.change, rerun=runs_again
    )


def _intent(job: Job) -> intent.Intent:
    stored = JobVersion.objects.filter(job=job, number=job.version)
    digest, generation = stored.values_list("digest", "generation").get()
    return intent.Intent(
        state=JobState(job.state),
        version=job.version,
        digest=digest,
        generation=generation,
        round=job.round,
        count=job.count,
        priority=job.priority,
        labels=job.labels,
        stop_requested=job.stop_requested,
    )


def _columns(it: spec.JobSpec) -> dict[str, Any]:
    return {
        "type": str(it.type),
        "priority": it.priority,
        "count": it.count,
        "labels": dict(it.labels),
    }


def _version(
    job: Job, wanted: intent.Intent, it: spec.JobSpec, actor: str, user: User | None
) -> JobVersion:
    return JobVersion(
        job=job,
        number=wanted.version,
        spec=spec.body(it),
        digest=wanted.digest,
        generation=wanted.generation,
        actor=actor,
        created_by=user,
    )


def _lock(job_id: UUID) -> Job:
    if not lock_rows(Lock.JOBS, [job_id], "id"):
        raise NotFound(kind="job", name=str(job_id))
    return Job.objects.get(pk=job_id)
