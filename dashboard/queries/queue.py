"""The queue of evaluations: its states, its workers, and what was evaluated lately."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

from orchestrator import broker
from orchestrator.explain.errors import NotFound
from orchestrator.models import BrokerRow, Evaluation, WorkerProcess

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
    """Every state of the queue, in one look; stops counting at *most* of each."""
    with connection.cursor() as cursor:
        cursor.execute(_BY_STATE, {"most": most})
        rows = cursor.fetchall()
        cursor.execute(_ARRIVING, [most])
        arriving, oldest = cursor.fetchone()
    found: dict[str, InState] = {}
    for name, kind, n, since in rows:
        held = found.get(name, InState(by_type={}))
        earliest = min((t for t in (held.oldest, since) if t), default=None)
        found[name] = InState(held.n + n, earliest, {**(held.by_type or {}), kind: n})
    found["arriving"] = InState(arriving, oldest)
    return {name: found.get(name, InState()) for name in ("arriving", *STATES)}


_IN = {
    "leased": "leased_want IS NOT NULL",
    "dead": "dead_letter IS NOT NULL AND leased_want IS NULL",
    "blocked": "blocked_on IS NOT NULL AND dead_letter IS NULL AND leased_want IS NULL",
    "waiting": """not_before IS NOT NULL AND blocked_on IS NULL AND dead_letter IS NULL
                  AND leased_want IS NULL""",
    "ready": """want > done AND leased_want IS NULL AND dead_letter IS NULL
                AND blocked_on IS NULL AND not_before IS NULL""",
}
"""Each has its index.  A job is in one state, and a full one must not hide another."""

_BY_STATE = " UNION ALL ".join(
    f"""
    SELECT '{state}', type, count(*), min(since) FROM (
        SELECT type, coalesce(nullif(blocked_on->>'since', '')::timestamptz,
                              {"not_before" if state == "waiting" else "ready_since"}) AS since
        FROM orchestrator_brokerrow WHERE {is_in} LIMIT %(most)s
    ) {state} GROUP BY type"""  # noqa: S608 - All of it is written above.
    for state, is_in in _IN.items()
)

_ARRIVING = """
    SELECT count(*), min(at) FROM (
        SELECT at FROM orchestrator_brokertrigger
        WHERE node_id IS NULL AND not_before <= (SELECT clock_timestamp())
        ORDER BY not_before, id LIMIT %s
    ) arriving
"""


def rows(state: str) -> Part[BrokerRow]:
    """The first jobs in one state, those first that will be taken first."""
    return part(broker.in_state(broker.QueueState(state)), LISTED)


def workers(now: datetime) -> Part[WorkerProcess]:
    seen = WorkerProcess.objects.filter(seen_at__gt=now - SEEN_WITHIN)
    return part(seen.order_by("name"), LISTED)


def evaluations(limit: int = 25) -> Part[Evaluation]:
    """The newest evaluations of all jobs."""
    return part(Evaluation.objects.select_related("job").order_by("-pk"), limit)


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
    WHERE finished_at IS NOT NULL
"""


def one(pk: int) -> Evaluation:
    """The evaluation with this number; raises NotFound."""
    found = Evaluation.objects.filter(pk=pk).select_related("job").first()
    if found is None:
        raise NotFound(kind="evaluation", name=pk)
    return found


def neighbours(evaluation: Evaluation, limit: int = 10) -> Part[Evaluation]:
    """The newest evaluations of the same job."""
    return part(Evaluation.objects.filter(job_id=evaluation.job_id).order_by("-pk"), limit)
