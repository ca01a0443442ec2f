"""What the whole cluster is doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from django.contrib.postgres.expressions import ArraySubquery
from django.db import connection
from django.db.models import Count, Q, Sum

from nodes import readiness
from nodes.models import Node
from nodes.protocol.resources import DIMENSIONS
from orchestrator import broker
from orchestrator.access.sight import Sight
from orchestrator.models import ClusterSetting, Event, Job, Namespace

from .paging import Part, part

MOST_LIVE = 50_000
RECENT = 4000
MOST_FAILED = 10_000
MOST_WAITING = 1000
MOST_NAMESPACES = 200
ATTENTION = 100
"""Rows of each kind of trouble that are read; equals are shown as one."""


@dataclass(frozen=True, slots=True)
class Minute:
    """Executions that started and failed in one of the last minutes; ``ago`` 0 is the current."""

    ago: int
    started: int
    failed: int


@dataclass(frozen=True, slots=True)
class Recent:
    """The last hour of executions, at most the newest RECENT of them; MOST_FAILED that failed.

    What failed counts by its end, whenever it was decided.  Waits are in seconds, by what was
    waited for: each the median and the 95th percentile.
    """

    minutes: tuple[Minute, ...] = ()
    sample: int = 0
    waits: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)


def setting() -> ClusterSetting:
    """What operators have set, or the defaults before anybody has; with the names of namespaces."""
    return ClusterSetting.objects.filter(pk=1).annotate(namespaces=_NAMESPACES).first() or (
        ClusterSetting()
    )


_NAMESPACES = ArraySubquery(Namespace.objects.order_by("name").values("name")[:MOST_NAMESPACES])


def counts() -> tuple[dict[str, int], dict[str, int]]:
    """Live executions by observed state, and jobs that wait by state.

    Stops counting at MOST_LIVE executions, and at MOST_WAITING jobs of each state.
    """
    found: dict[str, dict[str, int]] = {"live": {}, "waiting": {}}
    with connection.cursor() as cursor:
        cursor.execute(_COUNTS, {"live": MOST_LIVE, "waiting": MOST_WAITING})
        for what, state, n in cursor.fetchall():
            found[what][state] = n
    return found["live"], found["waiting"]


_COUNTS = """
    SELECT 'live', observed, count(*) FROM (
        SELECT observed FROM orchestrator_liveexecution l CROSS JOIN LATERAL (
            SELECT * FROM orchestrator_execution WHERE id = l.execution_id OFFSET 0) e
        WHERE NOT settled AND ended_at IS NULL LIMIT %(live)s) live
    GROUP BY observed
    UNION ALL
    SELECT 'waiting', state, (SELECT count(*) FROM (
        SELECT 1 FROM orchestrator_job j
        WHERE j.outcome IS NULL AND j.state = w.state LIMIT %(waiting)s) jobs)
    FROM (VALUES ('pending'), ('queued')) w(state)
"""


def recent(now: datetime) -> Recent:
    """What the newest executions of the last hour did, minute by minute."""
    with connection.cursor() as cursor:
        cursor.execute(_MINUTES, {"now": now, "most": RECENT, "most_failed": MOST_FAILED})
        minutes, sample, waits = cursor.fetchone()
    return Recent(
        minutes=tuple(Minute(*row) for row in minutes or ()),
        sample=sample,
        waits={name: (low, high) for name, low, high in waits or ()},
    )


_MINUTES = """
    WITH newest AS MATERIALIZED (
        SELECT e.created_at, e.started_at, e.ended_at, j.round_at, j.round = e.round
               AND e.attempt = 1 AND e.created_at >= j.round_at AS first
        FROM (
            SELECT job_id, created_at, started_at, ended_at, round, attempt
            FROM orchestrator_execution WHERE created_at > %(now)s::timestamptz - interval '1 hour'
            ORDER BY created_at DESC, id LIMIT %(most)s
        ) e JOIN orchestrator_job j ON j.id = e.job_id
    ), moments AS (
        SELECT started_at AS at, 1 AS started, 0 AS failed FROM newest WHERE started_at IS NOT NULL
        UNION ALL
        (SELECT at, 0, 1 FROM orchestrator_executionhistory
         WHERE lane = 'observed' AND after = 'failed'
             AND at > %(now)s::timestamptz - interval '1 hour'
         ORDER BY at DESC LIMIT %(most_failed)s)
    ), minutes AS (
        SELECT greatest(0, floor(extract(epoch FROM %(now)s::timestamptz - at) / 60))::int AS ago,
               sum(started) AS started, sum(failed) AS failed
        FROM moments GROUP BY 1
    ), waits AS (
        SELECT name, percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM w)) AS low,
               percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM w)) AS high
        FROM newest, LATERAL (VALUES ('submit', CASE WHEN first THEN started_at - round_at END),
            ('start', started_at - created_at), ('run', ended_at - started_at)) waited(name, w)
        GROUP BY name
    )
    SELECT (SELECT json_agg(json_build_array(ago, started, failed)) FROM minutes),
           (SELECT count(*) FROM newest),
           (SELECT json_agg(json_build_array(name, low, high)) FROM waits)
"""


@dataclass(frozen=True, slots=True)
class Room:
    """Nodes, and what is allocated of those that *offer* something, by dimension."""

    known: int
    offer: int
    ready: int
    pending: int
    allocated: Mapping[str, int]
    capacity: Mapping[str, int]


READY = Q(**readiness.READY)


def room() -> Room:
    """What the approved nodes offer and what of it is taken."""
    approved = Q(approval="approved") & ~Q(connection="lost")
    sums = {
        f"{column}_{dimension}_sum": Sum(f"{column}_{dimension}", filter=approved)
        for column in ("allocated", "capacity")
        for dimension in DIMENSIONS
    }
    found = Node.objects.aggregate(
        known=Count("pk"),
        offer=Count("pk", filter=approved),
        ready=Count("pk", filter=READY),
        pending=Count("pk", filter=Q(approval="pending")),
        **sums,
    )
    return Room(
        known=found["known"],
        offer=found["offer"],
        ready=found["ready"],
        pending=found["pending"],
        allocated={d: found[f"allocated_{d}_sum"] or 0 for d in DIMENSIONS},
        capacity={d: found[f"capacity_{d}_sum"] or 0 for d in DIMENSIONS},
    )


def troubled_nodes() -> list[Node]:
    """Nodes that an operator should look at, oldest trouble first."""
    troubled = (
        Q(approval="pending")
        | ~Q(quarantined="")
        | Q(approval="approved") & ~Q(degraded="")
        | Q(approval="approved", connection__in=["disconnected", "lost"])
    )
    return list(Node.objects.filter(troubled).order_by("connection_since")[:ATTENTION])


def stuck_jobs(sight: Sight, late: datetime, most: int = ATTENTION) -> list[Job]:
    """Jobs in *sight* that are stuck, the worst kind first.

    Dead letters, what no node could ever run, what has been ready since before *late*, and what
    is blocked: of each kind at most *most*, so that none hides another.
    """
    names = None if sight.names is None else sorted(sight.names)
    return list(Job.objects.raw(_STUCK, {"names": names, "late": late, "most": most}))


_SEEN = """
    (%(names)s::text[] IS NULL OR (SELECT namespace_id FROM orchestrator_job j
                                   WHERE j.id = q.job_id) = ANY (%(names)s::text[]))
"""

# The first of each class that is blocked, by its index, and of these the first.
_BLOCKED = f"""
    SELECT job_id, since FROM orchestrator_blockedclass c CROSS JOIN LATERAL (
        SELECT * FROM orchestrator_blockedjob q WHERE q.class = c.digest AND {_SEEN}
        ORDER BY urgency, since, job_id LIMIT %(most)s) b
    WHERE {{}} ORDER BY urgency, since, job_id LIMIT %(most)s
"""  # noqa: S608 - our own columns

_STUCK = f"""
    SELECT j.* FROM (SELECT job_id, min(kind) AS kind, min(since) AS since FROM (
        (SELECT job_id, 0 AS kind, since FROM orchestrator_brokerrow q
         WHERE dead_letter IS NOT NULL AND {_SEEN} ORDER BY job_id LIMIT %(most)s)
        UNION ALL SELECT job_id, 1, since FROM ({_BLOCKED.format("c.impossible")}) impossible
        UNION ALL SELECT job_id, 2, since FROM (
            SELECT job_id, since FROM orchestrator_brokertrigger q
            WHERE since < %(late)s
              AND (%(names)s::text[] IS NULL OR namespace = ANY (%(names)s::text[]))
              AND NOT EXISTS (SELECT FROM orchestrator_brokerrow r WHERE r.job_id = q.job_id)
            ORDER BY urgency, since, job_id LIMIT %(most)s) slow
        UNION ALL SELECT job_id, 3, since FROM ({_BLOCKED.format("NOT c.impossible")}) blocked
    ) each GROUP BY job_id) stuck JOIN orchestrator_job j ON j.id = stuck.job_id
    ORDER BY kind, priority DESC, since, j.id
"""  # noqa: S608 - our own columns


def failed_jobs(sight: Sight, since: datetime) -> list[Job]:
    """Jobs in *sight* that failed after *since*, those first that failed last."""
    failed = sight.of(Job.objects.filter(outcome="failed", ended_at__gt=since))
    return list(failed.order_by("-ended_at")[:ATTENTION])


def newest_jobs(sight: Sight, limit: int = 8) -> list[Job]:
    rows = sight.of(Job.objects.select_related("created_by", *broker.RELATED))
    return list(rows.order_by("-created_at", "pk")[:limit])


def newest_events(sight: Sight, limit: int = 10) -> Part[Event]:
    return part(sight.of(Event.objects.order_by("-pk")), limit)
