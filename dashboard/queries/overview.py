"""What the whole cluster is doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from django.contrib.postgres.expressions import ArraySubquery
from django.db import connection
from django.db.models import BooleanField, Case, Count, F, Func, Q, Sum, When

from nodes import readiness
from nodes.models import Node
from nodes.protocol.resources import DIMENSIONS
from orchestrator.access.sight import Sight
from orchestrator.models import BrokerRow, ClusterSetting, Event, Job, Namespace

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


def live() -> dict[str, int]:
    """Live executions by observed state; stops counting at MOST_LIVE."""
    with connection.cursor() as cursor:
        cursor.execute(_LIVE, [MOST_LIVE])
        return dict(cursor.fetchall())


_LIVE = """
    SELECT observed, count(*) FROM (
        SELECT observed FROM orchestrator_liveexecution l CROSS JOIN LATERAL (
            SELECT * FROM orchestrator_execution WHERE id = l.execution_id OFFSET 0) e
        WHERE NOT settled AND ended_at IS NULL LIMIT %s
    ) live GROUP BY observed
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


def troubled_rows(sight: Sight, late: datetime, most: int = ATTENTION) -> list[BrokerRow]:
    """Jobs in *sight* that are stuck, the worst kind first.

    Dead letters, what no node could ever run, what has been ready since before *late*, and what
    is blocked: of each kind at most *most*, so that none hides another, and each in the order of
    its index, so that no more are read however many there are. Their keys come as an array:
    joined to them, the whole table may be read, where the planner's statistics are old.
    """
    parked = Q(dead_letter__isnull=False)
    blocked = Q(blocked_on__isnull=False)
    ready = Q(want__gt=F("done"), leased_want__isnull=True, dead_letter__isnull=True)
    ready &= Q(blocked_on__isnull=True, not_before__isnull=True)
    first = ("-priority", "ready_since", "job_id")
    kinds: tuple[tuple[Q, tuple[str, ...]], ...] = (
        (parked, ("job_id",)),
        (blocked & Q(blocked_on__impossible=True), first),
        (ready & Q(ready_since__lt=late), first),
        (blocked, ("blocked_class", *first)),
    )
    rank = Case(*(When(kind, then=place) for place, (kind, _) in enumerate(kinds)))
    found = [
        sight.of(BrokerRow.objects.filter(kind)).order_by(*by).values("pk")[:most]
        for kind, by in kinds
    ]
    keys = ArraySubquery(found[0].union(*found[1:]))
    among = Func(
        F("pk"),
        keys,
        template="%(expressions)s)",
        arg_joiner=" = ANY(",
        output_field=BooleanField(),
    )
    rows = BrokerRow.objects.filter(among).select_related("job")
    return list(rows.order_by(rank, *first))


def failed_jobs(sight: Sight, since: datetime) -> list[Job]:
    """Jobs in *sight* that failed after *since*, those first that failed last."""
    failed = sight.of(Job.objects.filter(state="failed", ended_at__gt=since))
    return list(failed.order_by("-ended_at")[:ATTENTION])


def waiting_jobs() -> dict[str, int]:
    """Jobs that wait, by state; stops counting at MOST_WAITING of each."""
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, {"most": MOST_WAITING})
        return dict(cursor.fetchall())


_WAITING = """
    SELECT state, (SELECT count(*) FROM (SELECT 1 FROM orchestrator_job j
                                         WHERE j.state = w.state LIMIT %(most)s) jobs)
    FROM (VALUES ('pending'), ('queued')) w(state)
"""


def newest_jobs(sight: Sight, limit: int = 8) -> list[Job]:
    rows = sight.of(Job.objects.select_related("broker_row", "created_by"))
    return list(rows.order_by("-created_at", "pk")[:limit])


def newest_events(sight: Sight, limit: int = 10) -> Part[Event]:
    return part(sight.of(Event.objects.order_by("-pk")), limit)
