"""How the queue is doing.  A look costs what waits, however long the history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count, F, Q, QuerySet

from orchestrator.models import BrokerRow

#: Finished evaluations looked at for the rate, and over how many seconds.
RATED, RATED_SECONDS = 20_000, 10


class QueueState(StrEnum):
    """What becomes of a job of the queue."""

    READY = "ready"
    LEASED = "leased"
    WAITING = "waiting"
    BLOCKED = "blocked"
    DEAD = "dead"


_CONDITION: Mapping[QueueState, Q] = {
    QueueState.READY: Q(
        want__gt=F("done"),
        leased_want=None,
        dead_letter__isnull=True,
        blocked_on__isnull=True,
        not_before=None,
    ),
    QueueState.LEASED: Q(leased_want__isnull=False),
    QueueState.WAITING: Q(
        not_before__isnull=False, blocked_on__isnull=True, dead_letter__isnull=True
    ),
    QueueState.BLOCKED: Q(blocked_on__isnull=False),
    QueueState.DEAD: Q(dead_letter__isnull=False),
}


_ORDER: Mapping[QueueState, tuple[str, ...]] = {
    QueueState.READY: ("-priority", "ready_since", "job_id"),
    QueueState.LEASED: ("worker", "job_id"),
    QueueState.WAITING: ("not_before",),
    QueueState.BLOCKED: ("-priority", "ready_since", "job_id"),
    QueueState.DEAD: ("job_id",),
}


@dataclass(frozen=True, slots=True)
class BrokerStats:
    """The queue at one instant.

    ``arriving`` triggers are not folded yet.  ``oldest`` is how many seconds the most patient job
    has waited that could be evaluated, whether its trigger is folded yet or not.  ``rate`` is
    evaluations finished a second, lately; ``stalled`` as ``stalled_for`` has it.
    """

    ready: int = 0
    leased: int = 0
    waiting: int = 0
    blocked: int = 0
    dead: int = 0
    arriving: int = 0
    oldest: float = 0.0
    rate: float = 0.0
    stalled: float = 0.0
    by_type: Mapping[str, Mapping[str, int]] | None = None


def stats() -> BrokerStats:
    """Count the queue, by state and type."""
    counts: dict[str, int] = {}
    by_type: dict[str, dict[str, int]] = {}
    for state in QueueState:
        kinds = BrokerRow.objects.filter(_CONDITION[state]).values_list("type")
        for kind, n in kinds.annotate(n=Count("*")):
            counts[state] = counts.get(state, 0) + n
            by_type.setdefault(kind, {})[state] = n
    with connection.cursor() as cursor:
        cursor.execute(_LATELY, [RATED, RATED_SECONDS])
        arriving, finished = cursor.fetchone()
    oldest, stalled = _waits()
    return BrokerStats(
        **counts,
        arriving=arriving,
        oldest=oldest,
        rate=finished / RATED_SECONDS,
        stalled=stalled,
        by_type=by_type,
    )


def stalled_for(database: BaseDatabaseWrapper | None = None) -> float:
    """For how many seconds evaluations have waited while none began; 0 when all is well.

    Nobody evaluates when this grows: no worker leases, or nobody tells them to.  A long queue
    that is worked on does not count, nor does one that an operator has paused.  One cheap query,
    over *database* where another connection than this thread's is meant.
    """
    return _waits(database)[1]


def silent_leaseholders(
    after: float, database: BaseDatabaseWrapper | None = None
) -> list[tuple[str, int, float]]:
    """Workers that hold leases and were not heard of for *after* seconds.

    Of each its name, how many jobs wait for it, and for how many seconds it has been silent.
    """
    with (database or connection).cursor() as cursor:
        cursor.execute(_SILENT, [after])
        return [(name, jobs, float(age)) for name, jobs, age in cursor.fetchall()]


_SILENT = """
    SELECT w.name, count(*), extract(epoch FROM clock_timestamp() - w.seen_at)
    FROM orchestrator_brokerrow r JOIN orchestrator_workerprocess w ON w.name = r.worker
    WHERE r.leased_want IS NOT NULL AND w.seen_at < clock_timestamp() - %s * interval '1 second'
    GROUP BY w.name ORDER BY count(*) DESC, w.name
"""


def _waits(database: BaseDatabaseWrapper | None = None) -> tuple[float, float]:
    """How long the most patient job has waited, and for how long nothing was leased meanwhile."""
    with (database or connection).cursor() as cursor:
        cursor.execute(_WAITS)
        oldest, idle, paused = cursor.fetchone()
    waited = max(0.0, float(oldest or 0))
    if paused:
        return waited, 0.0
    return waited, waited if idle is None else max(0.0, min(waited, float(idle)))


_LATELY = """
    SELECT (SELECT count(*) FROM orchestrator_brokertrigger
            WHERE node_id IS NULL AND not_before <= (SELECT clock_timestamp())),
           (SELECT count(*) FROM (SELECT finished_at FROM orchestrator_evaluation
                                  ORDER BY id DESC LIMIT %s) AS newest
            WHERE finished_at > (SELECT clock_timestamp()) - %s * interval '1 second')
"""

# Whose moment has come waits from then on, folded or not.  A trigger of a job that is leased or
# gone is nobody's wait: the former is looked at, the latter swept away.
_WAITS = """
    SELECT extract(epoch FROM clock_timestamp() - least(
               (SELECT min(ready_since) FROM orchestrator_brokerrow
                WHERE want > done AND leased_want IS NULL AND dead_letter IS NULL
                  AND blocked_on IS NULL AND not_before IS NULL),
               (SELECT min(not_before) FROM orchestrator_brokerrow
                WHERE not_before <= (SELECT clock_timestamp())),
               (SELECT not_before FROM orchestrator_brokertrigger t
                WHERE node_id IS NULL AND not_before <= (SELECT clock_timestamp())
                  AND EXISTS (SELECT FROM orchestrator_job j WHERE j.id = t.job_id)
                  AND NOT EXISTS (SELECT FROM orchestrator_brokerrow r
                                  WHERE r.job_id = t.job_id AND r.leased_want IS NOT NULL)
                ORDER BY not_before, id LIMIT 1))),
           (SELECT extract(epoch FROM clock_timestamp() - leased_at)
            FROM orchestrator_evaluation ORDER BY id DESC LIMIT 1),
           EXISTS (SELECT FROM orchestrator_clustersetting WHERE scheduling_paused)
"""


def in_state(which: QueueState) -> QuerySet[BrokerRow]:
    """The jobs in one state, in the order in which they leave it."""
    rows = BrokerRow.objects.filter(_CONDITION[which]).select_related("job")
    return rows.order_by(*_ORDER[which])
