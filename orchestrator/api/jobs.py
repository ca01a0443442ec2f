"""Jobs: submitted, listed, shown, stopped, run again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse
from ninja import Router

from orchestrator import access, endpoint, spec
from orchestrator.endpoint import spec_warnings
from orchestrator.endpoint.finding import in_states
from orchestrator.explain.formatting import clock
from orchestrator.models import Evaluation, Execution, Job, JobVersion
from orchestrator.models.access import DEFAULT
from orchestrator.spec import InvalidSpec
from orchestrator.spec.mistakes import Mistake, mistake

from . import references, schemas, serializers
from .authentication import READ, RERUN, STOP, SUBMIT, caller
from .operations import operation
from .pagination import newest_page, page_by
from .parsing import LARGEST_BATCH
from .preconditions import creates_only, intent, require_seen
from .problems import invalid_parameters
from .responses import answer, tagged

router = Router(tags=["jobs"])


@router.post("/jobs", auth=SUBMIT)
@operation(
    {200: schemas.Submitted, 201: schemas.Submitted}, conditions=("If-Match", "If-None-Match")
)
def submit(request: HttpRequest, body: spec.JobSpec, query: schemas.InNamespace) -> HttpResponse:
    """Make the job what this specification says: 201 for a new job, otherwise 200.

    The same specification again changes nothing, and the answer says so.  `If-None-Match: *`
    creates only, `If-Match` updates only what the caller has seen; 412 otherwise.
    """
    who, [placed] = caller(request), _placed(request, [body], query)
    named = Job.objects.filter(namespace=placed.namespace, name=body.name)
    require_seen(request, named, body.name)
    done = endpoint.submit(
        placed,
        actor=who.actor,
        user=who.user,
        create_only=creates_only(request),
        permit=partial(access.require, who.rights, "replace"),
    )
    return answer(_submitted(done), 201 if done.created else 200)


@router.post("/jobs/batch", auth=SUBMIT)
@operation(schemas.SubmittedMany, conditions=("If-None-Match",), largest=LARGEST_BATCH)
def submit_batch(
    request: HttpRequest, body: schemas.Batch, query: schemas.InNamespace
) -> HttpResponse:
    """Submit all of these jobs, or, when one of them has a mistake, none.

    With `rerun` every slot of a job that has ended runs again, also when nothing else changes.
    `If-None-Match: *` creates only: 412 when one of them is there.
    """
    specs, who = _parse_all(body.jobs), caller(request)
    done = endpoint.submit_many(
        _each_once(_placed(request, specs, query, "jobs.{}.")),
        actor=who.actor,
        user=who.user,
        create_only=creates_only(request),
        rerun=body.rerun,
        permit=partial(access.require, who.rights, "replace"),
    )
    return answer(schemas.SubmittedMany(items=[_submitted(it) for it in done]))


@router.post("/jobs/validate", auth=READ)
@operation(schemas.Valid, changes=False)
def validate(request: HttpRequest, body: spec.JobSpec, query: schemas.InNamespace) -> HttpResponse:
    """Say what is wrong with a specification, or how it is understood; nothing is stored.

    What is odd and no mistake is named in `warnings`, here as in a submission: a driver or a
    label that no node has, constraints that exclude each other.
    """
    [namespace] = _namespaces([body], query, "")
    access.existing_namespace(caller(request).rights, namespace)
    _in_place([body], [namespace])
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
    rows = caller(request).sight(query.namespace).of(Job.objects.all())
    if query.state:
        rows = rows.filter(in_states(query.state))
    if query.type:
        rows = rows.filter(type__in=query.type)
    if query.name:
        rows = rows.filter(name__startswith=query.name)
    return newest_page(request, query, rows, serializers.job)


@router.get("/jobs/{ref}", auth=READ)
@operation(schemas.JobInFull)
def show_job(
    request: HttpRequest,
    ref: str,
    query: schemas.InNamespace,  # noqa: ARG001 - `references` looks at it
) -> HttpResponse:
    """One job, by name, id or the beginning of an id, with its current specification."""
    job = references.job(request, ref)
    current = JobVersion.objects.get(job=job, number=job.version)
    silent = endpoint.silent_nodes(job)
    shown = serializers.job(
        job,
        schemas.JobInFull,
        also=silent,
        spec=current.in_full(**job.intent),
        not_kept=serializers.not_kept(job),
    )
    return tagged(answer(shown), intent(job))


@router.get("/jobs/{ref}/versions", auth=READ)
@operation(schemas.Page[schemas.Version])
def list_versions(request: HttpRequest, ref: str, query: schemas.PagingInNamespace) -> HttpResponse:
    """Every specification that the job has had, the newest first."""
    job = references.job(request, ref)
    shown = partial(serializers.version, name=job.name)
    return page_by("-number", request, query, JobVersion.objects.filter(job=job), shown)


@router.get("/jobs/{ref}/executions", auth=READ)
@operation(schemas.Page[schemas.Execution])
def list_executions_of_job(
    request: HttpRequest, ref: str, query: schemas.JobExecutions
) -> HttpResponse:
    """The newest executions of the job first."""
    job = references.job(request, ref)
    rows = Execution.objects.filter(job=job).select_related("job", "node")
    if query.observed:
        rows = rows.filter(observed__in=query.observed)
    if query.slot is not None:
        rows = rows.filter(slot=query.slot)
    return newest_page(request, query, rows, serializers.execution)


@router.get("/jobs/{ref}/evaluations", auth=READ)
@operation(schemas.Page[schemas.Evaluation])
def list_evaluations_of_job(
    request: HttpRequest, ref: str, query: schemas.PagingInNamespace
) -> HttpResponse:
    """The newest evaluations of the job first."""
    rows = Evaluation.objects.filter(job=references.job(request, ref)).select_related("job")
    return page_by("-pk", request, query, rows, serializers.evaluation)


@router.post("/jobs/{ref}/stop", auth=STOP)
@operation(schemas.Job, conditions=("If-Match",))
def stop(
    request: HttpRequest,
    ref: str,
    body: schemas.Stop,
    query: schemas.InNamespace,  # noqa: ARG001 - `references` looks at it
) -> HttpResponse:
    """Ask that nothing of the job runs any longer; to stop what has ended changes nothing."""
    job = _seen(request, ref, "stop")
    return _as_stored(endpoint.stop(job.pk, actor=caller(request).actor, reason=body.reason))


@router.post("/jobs/{ref}/rerun", auth=RERUN)
@operation(schemas.Job, conditions=("If-Match",))
def rerun(
    request: HttpRequest,
    ref: str,
    query: schemas.InNamespace,  # noqa: ARG001 - `references` looks at it
) -> HttpResponse:
    """Run every slot of the job again."""
    job = _seen(request, ref, "rerun")
    return _as_stored(endpoint.rerun(job.pk, actor=caller(request).actor))


def _placed(
    request: HttpRequest, specs: list[spec.JobSpec], query: schemas.InNamespace, path: str = ""
) -> list[spec.JobSpec]:
    """*specs* with the namespaces in which the caller may submit them."""
    rights, namespaces = caller(request).rights, _namespaces(specs, query, path)
    for namespace in sorted(set(namespaces)):
        access.require(rights, "submit", access.existing_namespace(rights, namespace))
    return _in_place(specs, namespaces, path)


def _in_place(
    specs: list[spec.JobSpec], namespaces: list[str], path: str = ""
) -> list[spec.JobSpec]:
    """*specs* with their namespaces; raises InvalidSpec for secrets that those have not."""
    named = zip(specs, namespaces, strict=True)
    placed = [it.model_copy(update={"namespace": namespace}) for it, namespace in named]
    missing = [
        {**one, "path": f"{path.format(number)}{one['path']}"}
        for number, them in enumerate(endpoint.missing(placed))
        for one in them
    ]
    if missing:
        raise InvalidSpec(missing)
    return placed


def _namespaces(specs: list[spec.JobSpec], query: schemas.InNamespace, path: str) -> list[str]:
    """The namespace of each of *specs*: its own word, or the request's; raises Problem for two."""
    asked = references.one_namespace(query.namespace, "a job lives in one")
    wrong = [
        mistake(
            f"{path.format(number)}namespace",
            f"is {it.namespace}, but the request is for the namespace {asked}",
            "Leave one of the two out.",
        )
        for number, it in enumerate(specs)
        if asked and it.namespace and it.namespace != asked
    ]
    if wrong:
        raise invalid_parameters(wrong)
    return [it.namespace or asked or DEFAULT for it in specs]


def _seen(request: HttpRequest, ref: str, verb: str) -> Job:
    """The job, which is as the caller has seen it if that is asked for."""
    job = references.job(request, ref, verb)
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


def _each_once(specs: list[spec.JobSpec]) -> list[spec.JobSpec]:
    """*specs*; raises InvalidSpec when one of them has the name of another."""
    first: dict[tuple[str | None, str], int] = {}
    errors = [
        mistake(f"jobs.{number}.name", f"{it.name!r} is that of jobs.{before}, too", "Rename one.")
        for number, it in enumerate(specs)
        if (before := first.setdefault((it.namespace, it.name), number)) != number
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
        if done.change:
            sentence = f"{name} has changed: {done.change}; it is at version {done.version}"
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


def _said(warnings: Sequence[Mistake]) -> list[schemas.Warned]:
    return [schemas.Warned(**it) for it in warnings]
