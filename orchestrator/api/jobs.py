"""Jobs: submitted, listed, shown, stopped, run again."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from pydantic import Field

from orchestrator import endpoint, spec
from orchestrator.endpoint import Submitted, drivers
from orchestrator.errors import InvalidSpec
from orchestrator.lifecycle import OBSERVED, JobState, JobType
from orchestrator.models import Evaluation, Execution, Job, JobVersion

from . import references, schemas, shapes
from .authentication import READ, SUBMIT, caller
from .idempotency import only_reads
from .pagination import Paging, newest_first, page, place_in_time, words
from .parsing import LARGEST_BATCH, json_bytes, read
from .preconditions import creates_only, honours, intent, require_seen
from .problems import invalid_parameters
from .responses import answer, tagged
from .validation_errors import mistake

MOST_AT_ONCE = 500
_JOB_FILE = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "/api/v1/schemas/job"}}},
    }
}

router = Router(tags=["jobs"])


@router.post(
    "/jobs",
    auth=SUBMIT,
    response={200: schemas.Submitted, 201: schemas.Submitted},
    openapi_extra=_JOB_FILE,
)
@honours("If-Match", "If-None-Match")
def submit(request: HttpRequest) -> HttpResponse:
    """Make the job what this specification says: 201 for a new job, otherwise 200.

    The same specification again changes nothing, and the answer says so.  `If-None-Match: *`
    creates only, `If-Match` updates only what the caller has seen; 412 otherwise.
    """
    job_spec, who = spec.parse_json(json_bytes(request)), caller(request)
    require_seen(request, Job.objects.filter(name=job_spec.name), job_spec.name)
    done = endpoint.submit(
        job_spec, actor=who.actor, user=who.user, create_only=creates_only(request)
    )
    return answer(_submitted(done), 201 if done.created else 200)


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    """Each job is read by the same reader as a single one: its text is kept until then."""

    jobs: list[msgspec.Raw]
    rerun: bool = False


@router.post(
    "/jobs/batch",
    auth=SUBMIT,
    response=schemas.SubmittedMany,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["jobs"],
                        "properties": {
                            "jobs": {
                                "type": "array",
                                "maxItems": MOST_AT_ONCE,
                                "items": {"$ref": "/api/v1/schemas/job"},
                            },
                            "rerun": {"type": "boolean", "default": False},
                        },
                    }
                }
            },
        }
    },
)
@honours("If-None-Match")
def submit_batch(request: HttpRequest) -> HttpResponse:
    """Submit all of these jobs, or, when one of them has a mistake, none.

    With `rerun` every slot of a job that has ended runs again, also when nothing else changes.
    `If-None-Match: *` creates only: 412 when one of them is there.
    """
    batch = read(request, Batch, at_most=LARGEST_BATCH)
    specs = _parse_all(batch.jobs)
    who = caller(request)
    done = endpoint.submit_many(
        specs,
        actor=who.actor,
        user=who.user,
        create_only=creates_only(request),
        rerun=batch.rerun,
    )
    return answer({"items": [_submitted(it) for it in done]})


@router.post("/jobs/validate", auth=READ, response=schemas.Valid, openapi_extra=_JOB_FILE)
@only_reads
def validate(request: HttpRequest) -> HttpResponse:
    """Say what is wrong with a specification, or how it is understood; nothing is stored.

    A driver that no node has is no mistake, and named in `warnings`, here as in a submission.
    """
    job_spec = spec.parse_json(json_bytes(request))
    [warnings] = drivers.warnings([job_spec])
    return answer({"valid": True, "spec": spec.canonical(job_spec), "warnings": warnings})


@router.get("/schemas/job", auth=None, tags=["schemas"])
def job_schema(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - ninja's first
    """The JSON Schema of a job file."""
    return answer(spec.json_schema())


class Jobs(Paging):
    state: Annotated[str, Field(max_length=100, description="one or several, with commas")] = ""
    type: Annotated[str, Field(max_length=100, description="one or several, with commas")] = ""
    name: Annotated[str, Field(max_length=63, description="what the name begins with")] = ""


@router.get("/jobs", auth=READ, response=schemas.page_of(schemas.Job))
def list_jobs(request: HttpRequest, paging: Query[Jobs]) -> HttpResponse:
    """The newest jobs first."""
    rows = Job.objects.all()
    if states := words(paging.state, JobState, "state"):
        rows = rows.filter(state__in=states)
    if types := words(paging.type, JobType, "type"):
        rows = rows.filter(type__in=types)
    if "\0" in paging.name:
        said = "contains the unsupported character U+0000"
        raise invalid_parameters([mistake("name", said, "Remove it.")])
    if paging.name:
        rows = rows.filter(name__startswith=paging.name)
    return page(request, paging, lambda after: newest_first(rows, after), place_in_time, shapes.job)


@router.get("/jobs/{ref}", auth=READ, response=schemas.JobInFull)
def show_job(request: HttpRequest, ref: str) -> HttpResponse:  # noqa: ARG001 - ninja's first
    """One job, by name, id or the beginning of an id, with its current specification."""
    job = references.job(ref)
    current = JobVersion.objects.filter(job=job, number=job.version).values_list("spec", flat=True)
    return tagged(answer({**shapes.job(job), "spec": current.first()}), intent(job))


@router.get("/jobs/{ref}/versions", auth=READ, response=schemas.page_of(schemas.Version))
def list_versions(request: HttpRequest, ref: str, paging: Query[Paging]) -> HttpResponse:
    """Every specification that the job has had, the newest first."""
    job = references.job(ref)

    def rows(after: list[Any] | None) -> QuerySet[JobVersion]:
        found = JobVersion.objects.filter(job=job).order_by("-number")
        return found if after is None else found.filter(number__lt=after[0])

    return page(request, paging, rows, lambda row: [row.number], shapes.version)


class JobExecutions(Paging):
    observed: Annotated[str, Field(max_length=200, description="one or several, with commas")] = ""
    slot: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None


@router.get("/jobs/{ref}/executions", auth=READ, response=schemas.page_of(schemas.Execution))
def list_executions_of_job(
    request: HttpRequest, ref: str, paging: Query[JobExecutions]
) -> HttpResponse:
    """The newest executions of the job first."""
    job = references.job(ref)
    rows = Execution.objects.filter(job=job).select_related("job", "node")
    if observed := words(paging.observed, OBSERVED.states, "observed"):
        rows = rows.filter(observed__in=observed)
    if paging.slot is not None:
        rows = rows.filter(slot=paging.slot)
    return page(
        request, paging, lambda after: newest_first(rows, after), place_in_time, shapes.execution
    )


@router.get("/jobs/{ref}/evaluations", auth=READ, response=schemas.page_of(schemas.Evaluation))
def list_evaluations_of_job(request: HttpRequest, ref: str, paging: Query[Paging]) -> HttpResponse:
    """The newest evaluations of the job first."""
    job = references.job(ref)

    def rows(after: list[Any] | None) -> QuerySet[Evaluation]:
        found = Evaluation.objects.filter(job=job).select_related("job").order_by("-pk")
        return found if after is None else found.filter(pk__lt=after[0])

    return page(request, paging, rows, lambda row: [row.pk], shapes.evaluation)


class Why(msgspec.Struct, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(max_length=500, pattern="^[^\0]*$")] = ""


@router.post(
    "/jobs/{ref}/stop",
    auth=SUBMIT,
    response=schemas.Job,
    openapi_extra=schemas.body(reason={"type": "string", "maxLength": 500}),
)
@honours("If-Match")
def stop(request: HttpRequest, ref: str) -> HttpResponse:
    """Ask that nothing of the job runs any longer; to stop what has ended changes nothing."""
    reason, job = read(request, Why).reason, _seen(request, ref)
    return _as_stored(endpoint.stop(job.pk, actor=caller(request).actor, reason=reason))


@router.post("/jobs/{ref}/rerun", auth=SUBMIT, response=schemas.Job)
@honours("If-Match")
def rerun(request: HttpRequest, ref: str) -> HttpResponse:
    """Run every slot of the job again."""
    read(request, Nothing)
    return _as_stored(endpoint.rerun(_seen(request, ref).pk, actor=caller(request).actor))


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request that has nothing to say."""


def _seen(request: HttpRequest, ref: str) -> Job:
    """The job, which is as the caller has seen it if that is asked for."""
    job = references.job(ref)
    require_seen(request, Job.objects.filter(pk=job.pk), job.name)
    return job


def _as_stored(changed: Job) -> HttpResponse:
    """Read again: the database has raised its revision."""
    return answer(shapes.job(Job.objects.get(pk=changed.pk)))


def _parse_all(texts: list[msgspec.Raw]) -> list[spec.JobSpec]:
    if not 1 <= len(texts) <= MOST_AT_ONCE:
        raise invalid_parameters(
            [mistake("jobs", f"has {len(texts)} entries", f"Send 1 to {MOST_AT_ONCE} at once.")]
        )
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


def _submitted(done: Submitted) -> dict[str, Any]:
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
            sentence += f", and it {done.job.state} at {done.job.ended_at:%Y-%m-%d %H:%M:%S} UTC"
    return {
        "id": done.job.pk,
        "name": name,
        "version": done.version,
        "state": done.job.state,
        "created": done.created,
        "changed": done.changed,
        "rerun": done.rerun,
        "sentence": sentence,
        "warnings": done.warnings,
    }
