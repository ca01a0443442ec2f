"""Jobs: submitted, listed, shown, stopped, run again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse
from ninja import Router

from orchestrator import endpoint, spec
from orchestrator.endpoint import spec_warnings
from orchestrator.explain.formatting import clock
from orchestrator.models import Evaluation, Execution, Job, JobVersion
from orchestrator.spec import InvalidSpec
from orchestrator.spec.mistakes import Mistake

from . import references, schemas, serializers
from .authentication import READ, SUBMIT, caller
from .operations import operation
from .pagination import newest_page, page_by
from .parsing import LARGEST_BATCH
from .preconditions import creates_only, intent, require_seen
from .responses import answer, tagged

router = Router(tags=["jobs"])


@router.post("/jobs", auth=SUBMIT)
@operation(
    {200: schemas.Submitted, 201: schemas.Submitted}, conditions=("If-Match", "If-None-Match")
)
def submit(request: HttpRequest, body: spec.JobSpec) -> HttpResponse:
    """Make the job what this specification says: 201 for a new job, otherwise 200.

    The same specification again changes nothing, and the answer says so.  `If-None-Match: *`
    creates only, `If-Match` updates only what the caller has seen; 412 otherwise.
    """
    who = caller(request)
    require_seen(request, Job.objects.filter(name=body.name), body.name)
    done = endpoint.submit(body, actor=who.actor, user=who.user, create_only=creates_only(request))
    return answer(_submitted(done), 201 if done.created else 200)


@router.post("/jobs/batch", auth=SUBMIT)
@operation(schemas.SubmittedMany, conditions=("If-None-Match",), largest=LARGEST_BATCH)
def submit_batch(request: HttpRequest, body: schemas.Batch) -> HttpResponse:
    """Submit all of these jobs, or, when one of them has a mistake, none.

    With `rerun` every slot of a job that has ended runs again, also when nothing else changes.
    `If-None-Match: *` creates only: 412 when one of them is there.
    """
    specs, who = _parse_all(body.jobs), caller(request)
    done = endpoint.submit_many(
        specs,
        actor=who.actor,
        user=who.user,
        create_only=creates_only(request),
        rerun=body.rerun,
    )
    return answer(schemas.SubmittedMany(items=[_submitted(it) for it in done]))


@router.post("/jobs/validate", auth=READ)
@operation(schemas.Valid, changes=False)
def validate(request: HttpRequest, body: spec.JobSpec) -> HttpResponse:  # noqa: ARG001 - ninja's first
    """Say what is wrong with a specification, or how it is understood; nothing is stored.

    What is odd and no mistake is named in `warnings`, here as in a submission: a driver or a
    label that no node has, constraints that exclude each other.
    """
    [warnings] = spec_warnings.warnings([body])
    understood = spec.canonical(body)
    return answer(schemas.Valid(valid=True, spec=understood, warnings=_said(warnings)))


@router.get("/schemas/job", auth=None, tags=["schemas"])
@operation(dict[str, Any])
def job_schema(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - ninja's first
    """The JSON Schema of a job file."""
    return answer(spec.json_schema())


@router.get("/jobs", auth=READ)
@operation(schemas.Page[schemas.Job])
def list_jobs(request: HttpRequest, query: schemas.Jobs) -> HttpResponse:
    """The newest jobs first."""
    rows = Job.objects.all()
    if query.state:
        rows = rows.filter(state__in=query.state)
    if query.type:
        rows = rows.filter(type__in=query.type)
    if query.name:
        rows = rows.filter(name__startswith=query.name)
    return newest_page(request, query, rows, serializers.job)


@router.get("/jobs/{ref}", auth=READ)
@operation(schemas.JobInFull)
def show_job(request: HttpRequest, ref: str) -> HttpResponse:  # noqa: ARG001 - ninja's first
    """One job, by name, id or the beginning of an id, with its current specification."""
    job = references.job(ref)
    current = JobVersion.objects.filter(job=job, number=job.version).values_list("spec", flat=True)
    silent = endpoint.silent_nodes(job)
    shown = serializers.job(job, schemas.JobInFull, also=silent, spec=current.first())
    return tagged(answer(shown), intent(job))


@router.get("/jobs/{ref}/versions", auth=READ)
@operation(schemas.Page[schemas.Version])
def list_versions(request: HttpRequest, ref: str, query: schemas.Paging) -> HttpResponse:
    """Every specification that the job has had, the newest first."""
    rows = JobVersion.objects.filter(job=references.job(ref))
    return page_by("-number", request, query, rows, schemas.Version.of)


@router.get("/jobs/{ref}/executions", auth=READ)
@operation(schemas.Page[schemas.Execution])
def list_executions_of_job(
    request: HttpRequest, ref: str, query: schemas.JobExecutions
) -> HttpResponse:
    """The newest executions of the job first."""
    job = references.job(ref)
    rows = Execution.objects.filter(job=job).select_related("job", "node")
    if query.observed:
        rows = rows.filter(observed__in=query.observed)
    if query.slot is not None:
        rows = rows.filter(slot=query.slot)
    return newest_page(request, query, rows, serializers.execution)


@router.get("/jobs/{ref}/evaluations", auth=READ)
@operation(schemas.Page[schemas.Evaluation])
def list_evaluations_of_job(request: HttpRequest, ref: str, query: schemas.Paging) -> HttpResponse:
    """The newest evaluations of the job first."""
    rows = Evaluation.objects.filter(job=references.job(ref)).select_related("job")
    return page_by("-pk", request, query, rows, serializers.evaluation)


@router.post("/jobs/{ref}/stop", auth=SUBMIT)
@operation(schemas.Job, conditions=("If-Match",))
def stop(request: HttpRequest, ref: str, body: schemas.Stop) -> HttpResponse:
    """Ask that nothing of the job runs any longer; to stop what has ended changes nothing."""
    job = _seen(request, ref)
    return _as_stored(endpoint.stop(job.pk, actor=caller(request).actor, reason=body.reason))


@router.post("/jobs/{ref}/rerun", auth=SUBMIT)
@operation(schemas.Job, conditions=("If-Match",))
def rerun(request: HttpRequest, ref: str) -> HttpResponse:
    """Run every slot of the job again."""
    return _as_stored(endpoint.rerun(_seen(request, ref).pk, actor=caller(request).actor))


def _seen(request: HttpRequest, ref: str) -> Job:
    """The job, which is as the caller has seen it if that is asked for."""
    job = references.job(ref)
    require_seen(request, Job.objects.filter(pk=job.pk), job.name)
    return job


def _as_stored(changed: Job) -> HttpResponse:
    """Read again: the database has raised its revision."""
    return answer(serializers.job(Job.objects.get(pk=changed.pk)))


def _parse_all(texts: list[msgspec.Raw]) -> list[spec.JobSpec]:
    specs: list[spec.JobSpec] = []
    errors: list[dict[str, str]] = []
    for number, text in enumerate(texts):
        try:
            specs.append(spec.parse_json(bytes(text)))
        except InvalidSpec as error:
            where = f"jobs.{number}"
            errors += [
                {**it, "path": f"{where}.{it['path']}" if it["path"] else where}
                for it in error.errors
            ]
    if errors:
        raise InvalidSpec(errors)
    return specs


def _submitted(done: endpoint.Submitted) -> schemas.Submitted:
    name = done.job.name
    if done.created:
        sentence = f"{name} is a new job"
    elif done.changed:
        sentence = f"{name} is now at version {done.version}"
    elif done.rerun:
        sentence = f"{name} runs again: round {done.job.round} of version {done.version}"
    else:
        sentence = f"{name} is unchanged: version {done.version} is the same specification"
        if done.job.ended_at is not None:
            sentence += f", and it {done.job.state} at {clock(done.job.ended_at)}"
    return schemas.Submitted.of(
        done.job,
        version=done.version,
        created=done.created,
        changed=done.changed,
        rerun=done.rerun,
        sentence=sentence,
        warnings=_said(done.warnings),
    )


def _said(warnings: Sequence[Mistake]) -> list[schemas.Mistake]:
    return [schemas.Mistake(**it) for it in warnings]
