"""The queue of evaluations: its states, its workers, and what was evaluated lately."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

from orchestrator import broker
from orchestrator.access.sight import Sight
from orchestrator.explain.errors import NotFound
from orchestrator.models import Evaluation, Job, WorkerProcess

from .paging import Part, part

STATES = tuple(state.value for state in broker.QueueState)
COUNTED = 10_000
LISTED = 50
SEEN_WITHIN = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class InState:
    """How many jobs are in one state of the queue, at most COUNTED, and since when the oldest.

    Of those that wait for their moment it is the next one of these.
    """

    n: int = 0
    oldest: datetime | None = None
    by_type: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """What was finished lately: evaluations of the last minute, and their durations in seconds."""

    minute: int
    low: float | None
    high: float | None
    last: datetime | None


def by_state(most: int = COUNTED) -> dict[str, InState]:
    """Every state of the queue; stops counting at *most* of each."""
    found = {}
    for state, kinds in broker.count(most).items():
        oldest = min((since for _, since in kinds.values()), default=None)
        by_type = {kind: n for kind, (n, _) in kinds.items()}
        found[state.value] = InState(sum(by_type.values()), oldest, by_type)
    return found


def rows(sight: Sight, state: str) -> Part[tuple[Job, broker.Standing]]:
    """The first jobs in *sight* in one state, those first that will be taken first."""
    which = broker.QueueState(state)
    ids = broker.in_state(which, LISTED + 1, sight.names)
    # A job may leave for another state between the two looks.
    jobs, standing = Job.objects.in_bulk(ids), broker.standing(ids)
    held = Part(
        (jobs[pk], standing[pk])
        for pk in ids
        if pk in jobs and pk in standing and standing[pk].state is which
    )
    held.more = len(held) > LISTED
    del held[LISTED:]
    return held


def workers(now: datetime) -> Part[WorkerProcess]:
    seen = WorkerProcess.objects.filter(seen_at__gt=now - SEEN_WITHIN)
    return part(seen.order_by("name"), LISTED)


def evaluations(sight: Sight, limit: int = 25) -> Part[Evaluation]:
    """The newest evaluations of the jobs in *sight*."""
    return part(sight.of(Evaluation.objects.select_related("job")).order_by("-pk"), limit)


def flow(now: datetime) -> Flow:
    """How fast the newest COUNTED evaluations went, and how many ended in the last minute."""
    with connection.cursor() as cursor:
        cursor.execute(_FLOW, [now, COUNTED])
        return Flow(*cursor.fetchone())


_FLOW = """
    SELECT count(*) FILTER (WHERE finished_at > %s::timestamptz - interval '1 minute'),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY took),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY took), max(finished_at)
    FROM (SELECT finished_at, extract(epoch FROM finished_at - leased_at) AS took
          FROM orchestrator_evaluation ORDER BY id DESC LIMIT %s) e
"""


def one(seen: Sight, pk: int) -> Evaluation:
    """The evaluation with this number; raises NotFound."""
    found = seen.of(Evaluation.objects.filter(pk=pk).select_related("job")).first()
    if found is None:
        raise NotFound(kind="evaluation", name=pk)
    return found


def neighbours(evaluation: Evaluation, limit: int = 10) -> Part[Evaluation]:
    """The newest evaluations of the same job."""
    return part(Evaluation.objects.filter(job_id=evaluation.job_id).order_by("-pk"), limit)
