"""Jobs, one job, and what belongs to it."""

from __future__ import annotations

from uuid import UUID

from django.db.models import Q, QuerySet

from orchestrator import broker
from orchestrator.access.sight import Sight
from orchestrator.endpoint import find_job
from orchestrator.endpoint.finding import begins_with, in_states
from orchestrator.lifecycle import ENDED
from orchestrator.models import Evaluation, Event, Execution, Job, JobVersion, SlotState, spec_cache

from .paging import Part, Slice, newest, part

SEARCHED = 10_000
"""A text is looked for in this many of the newest jobs; an exact name is found among all."""

MOST_SLOTS = 100_000
STATES = ("pending", "queued", "running", "completed", "failed", "stopped")


def page(sight: Sight, state: str, text: str, before: str) -> Slice[Job]:
    """Jobs in *sight* and in *state*, newest first.

    With *text*, those that have it in their names, or whose ids begin so.
    """
    seen = sight.of(Job.objects.all())
    rows: QuerySet[Job] = seen.select_related("created_by", *broker.RELATED)
    if state:
        rows = rows.filter(in_states([state]))
    if text:
        window = seen.order_by("-created_at", "pk").values("pk")[:SEARCHED]
        within = Job.objects.filter(pk__in=window, name__icontains=text).values("pk")
        begins, exactly = begins_with(text), Q(name=text)
        exact = seen.filter(exactly | begins if begins else exactly).values("pk")
        rows = rows.filter(pk__in=within.union(exact))
    return newest(rows, before)


def one(seen: Sight, reference: str, namespace: str) -> Job:
    """The job with this id, or of this name in *namespace*, or, without one, in any.

    Or that whose id begins so; raises NotFound or Ambiguous.
    """
    rows = seen.of(Job.objects.select_related("created_by", *broker.RELATED))
    return find_job(reference, rows, namespace or None)


def slot_states(job: Job) -> list[spec_cache.Slot]:
    """The slots of *job* that are not as all begin."""
    rows = SlotState.objects.filter(job=job).order_by("slot")
    return list(rows.values_list(*spec_cache.SLOT)[:MOST_SLOTS])


def slots(job: Job) -> list[tuple[int, str, str, UUID]]:
    """Slot, desired, observed and id of the executions that decisions still look at.

    Of a job that has ended also, of each slot, the newest that did not complete.
    """
    rows = Execution.objects.filter(round=job.round)
    values = rows.values_list("slot", "desired", "observed", "pk")
    # By what lives alone: a plan for any job reads all that this one has had, if it may.
    unsettled = values.filter(live__job=job, settled=False)
    live = list(unsettled.order_by("slot", "created_at")[:MOST_SLOTS])
    if job.state not in ENDED:
        return live
    over = values.filter(
        job=job, settled=True, observed__in=["failed", "cancelled", "lost"], slot__lt=job.count
    )
    newest = over.order_by("slot", "-created_at").distinct("slot")[:MOST_SLOTS]
    return [*newest, *live]


def executions(job: Job, before: str, slot: int | None = None) -> Slice[Execution]:
    """Its executions, newest first: all, or those of one slot."""
    rows = Execution.objects.filter(job=job).select_related("node", "job")
    if slot is not None:
        rows = rows.filter(slot=slot)
    return newest(rows, before)


def evaluations(job: Job, limit: int = 20) -> Part[Evaluation]:
    return part(Evaluation.objects.filter(job=job).order_by("-pk"), limit)


def version(job: Job, number: int) -> JobVersion | None:
    return JobVersion.objects.filter(job=job, number=number).select_related("created_by").first()


def version_before(version: JobVersion) -> JobVersion | None:
    older = JobVersion.objects.filter(job_id=version.job_id, number__lt=version.number)
    return older.order_by("-number").first()


def versions(job: Job, limit: int = 30) -> Part[JobVersion]:
    rows = JobVersion.objects.filter(job=job).select_related("created_by")
    return part(rows.order_by("-number"), limit)


def events(job: Job, limit: int = 25) -> Part[Event]:
    return part(Event.objects.filter(job_id=job.pk).order_by("-pk"), limit)
