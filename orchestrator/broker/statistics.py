"""How the queue is doing.  A look costs what waits, however long the history."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper

from .due import work
from .enqueue import BY_PEOPLE
from .looking import MAY_BE_LEASED, Place

#: Finished evaluations looked at for the rate, and over how many seconds.
RATED, RATED_SECONDS = 20_000, 10


class QueueState(StrEnum):
    """What becomes of a job of the queue."""

    READY = "ready"
    LEASED = "leased"
    WAITING = "waiting"
    BLOCKED = "blocked"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class BrokerStats:
    """The queue at one instant.

    ``oldest`` is how many seconds the most patient job has waited that could be evaluated.
    ``rate`` is evaluations finished a second, lately; ``stalled`` as ``stalled_for`` has it.
    """

    ready: int = 0
    leased: int = 0
    waiting: int = 0
    blocked: int = 0
    dead: int = 0
    oldest: float = 0.0
    rate: float = 0.0
    stalled: float = 0.0
    by_type: Mapping[str, Mapping[str, int]] | None = None


def stats() -> BrokerStats:
    """Count the queue, by state and type."""
    counts: dict[str, int] = {}
    by_type: dict[str, dict[str, int]] = {}
    for state, kinds in count(None).items():
        for kind, (n, _) in kinds.items():
            counts[state] = counts.get(state, 0) + n
            by_type.setdefault(kind, {})[state] = n
    with connection.cursor() as cursor:
        cursor.execute(_LATELY, [RATED, RATED_SECONDS])
        (finished,) = cursor.fetchone()
    oldest, stalled = _waits()
    return BrokerStats(
        **counts,
        oldest=oldest,
        rate=finished / RATED_SECONDS,
        stalled=stalled,
        by_type=by_type,
    )


def count(most: int | None) -> dict[QueueState, dict[str, tuple[int, datetime]]]:
    """How many jobs are in each state, and since when the first of them, by type.

    Looks at *most* of each state at most.  Those that wait for a moment do so until then.
    """
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, {"most": most, "by_people": list(BY_PEOPLE), "names": None})
        found: dict[QueueState, dict[str, tuple[int, datetime]]] = {it: {} for it in QueueState}
        for state, kind, n, since in cursor.fetchall():
            found[QueueState(state)][kind] = (n, since)
        return found


_NOT_TAKEN = "NOT EXISTS (SELECT FROM orchestrator_brokerrow r WHERE r.job_id = {}.job_id {})"

_NOT_READY = f"""
    NOT EXISTS (SELECT FROM orchestrator_brokertrigger t
                WHERE t.job_id = {{}}.job_id AND {MAY_BE_LEASED})
"""

# A job is in one of them, the same that ``standing`` says.
_EACH = {
    QueueState.READY: f"""
        SELECT job_id, min(type) AS type, min(since) AS since, min(urgency) AS urgency FROM (
            SELECT job_id, type, since, urgency FROM orchestrator_brokertrigger t
            WHERE {MAY_BE_LEASED} AND (%(names)s::text[] IS NULL OR namespace = ANY (%(names)s))
            {{ordered}} LIMIT %(most)s) ready
        GROUP BY job_id""",  # noqa: S608 - our own columns
    QueueState.LEASED: """
        SELECT job_id, type, since, worker FROM orchestrator_brokerrow
        WHERE leased_until IS NOT NULL""",
    QueueState.WAITING: f"""
        SELECT job_id, type, at AS since
        FROM orchestrator_brokerdue d JOIN orchestrator_job j ON j.id = d.job_id
        WHERE NOT EXISTS (SELECT FROM orchestrator_blockedjob b WHERE b.job_id = d.job_id)
          AND {_NOT_TAKEN.format("d", "AND (leased_until IS NOT NULL OR dead_letter IS NOT NULL)")}
          AND {_NOT_READY.format("d")}
    """,  # noqa: S608 - our own columns
    QueueState.BLOCKED: f"""
        SELECT job_id, type, coalesce(waits_since, since) AS since, class, urgency,
               since AS blocked_since
        FROM orchestrator_blockedjob b JOIN orchestrator_job j ON j.id = b.job_id
        WHERE {_NOT_TAKEN.format("b", "AND (leased_until IS NOT NULL OR dead_letter IS NOT NULL)")}
          AND {_NOT_READY.format("b")}
    """,  # noqa: S608 - our own columns
    QueueState.DEAD: f"""
        SELECT job_id, type, since FROM orchestrator_brokerrow d
        WHERE dead_letter IS NOT NULL AND {_NOT_READY.format("d")}""",  # noqa: S608
}

_COUNT = " UNION ALL ".join(
    f"""
    SELECT '{state}', type, count(*), min(since)
    FROM (SELECT * FROM ({rows.replace("{ordered}", "")}) one LIMIT %(most)s) {state} GROUP BY type
    """  # noqa: S608 - All of it is written above.
    for state, rows in _EACH.items()
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
    WHERE r.leased_until IS NOT NULL AND w.seen_at < clock_timestamp() - %s * interval '1 second'
    GROUP BY w.name ORDER BY count(*) DESC, w.name
"""


def _waits(database: BaseDatabaseWrapper | None = None) -> tuple[float, float]:
    """How long the most patient job has waited, and for how long nothing was leased meanwhile."""
    now = work(_place, database)
    stalled = 0.0 if now.paused else now.waited
    with (database or connection).cursor() as cursor:
        for leased in (_LEASED_LAST, _LEASED_NOW):
            if stalled > BUSY:
                cursor.execute(leased)
                [(idle,)] = cursor.fetchall() or [(None,)]
                stalled = stalled if idle is None else max(0.0, min(stalled, float(idle)))
    return now.waited, stalled


#: Where those look in this process who ask how the queue is doing.
_place = Place()

#: Seconds without a lease that are not worth looking at each row of what is leased: where nothing
#: could be vacuumed for long, that is slow.
BUSY = 1.0


_LATELY = """
    SELECT count(*) FROM (SELECT finished_at FROM orchestrator_evaluation
                          ORDER BY id DESC LIMIT %s) AS newest
    WHERE finished_at > (SELECT clock_timestamp()) - %s * interval '1 second'
"""

_LEASED_LAST = """
    SELECT extract(epoch FROM clock_timestamp() - leased_at)
    FROM orchestrator_evaluation ORDER BY id DESC LIMIT 1
"""

_LEASED_NOW = """
    SELECT extract(epoch FROM clock_timestamp() - max(leased_at))
    FROM orchestrator_brokerrow WHERE leased_until IS NOT NULL
"""


def in_state(which: QueueState, most: int, names: Collection[str] | None = None) -> list[UUID]:
    """The first jobs in one state, at most *most*, in the order in which they leave it.

    With *names*, those of these namespaces.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _FIRST[which],
            {
                "first": most,
                "most": RATED,
                "by_people": list(BY_PEOPLE),
                "names": None if names is None else list(names),
            },
        )
        return [job for (job,) in cursor.fetchall()]


_ORDER = {
    QueueState.READY: "urgency, since",
    QueueState.LEASED: "worker",
    QueueState.WAITING: "since",
    QueueState.BLOCKED: "class, urgency, blocked_since",
    QueueState.DEAD: "since",
}

_FIRST = {
    state: f"""
    SELECT job_id FROM ({_EACH[state].replace("{ordered}", "ORDER BY urgency, since")}) one
    WHERE %(names)s::text[] IS NULL OR (
        SELECT namespace_id FROM orchestrator_job j WHERE j.id = job_id) = ANY (%(names)s)
    ORDER BY {order}, job_id LIMIT %(first)s
    """  # noqa: S608 - All of it is written above.
    for state, order in _ORDER.items()
}
