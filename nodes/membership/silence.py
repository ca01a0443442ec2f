"""What time alone causes: a node not heard of is disconnected, then lost.

Silence is only counted while somebody could have heard: ``Listening`` remembers since when the
detector and the web processes have been at work without a break.  After an outage of either, all
deadlines begin anew, so neither a slow database nor a restart marks a whole cluster lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog
from django.db import connection, transaction

from nodes.locks import Lock, lock_rows
from nodes.models import Node
from nodes.protocol.lifecycle import Connection

log = structlog.get_logger(__name__)

#: A node that has missed a heartbeat is said to be silent; nothing is decided of it yet.
SILENT_AFTER = timedelta(seconds=15)
DISCONNECTED_AFTER = timedelta(seconds=30)
DETECTOR, EARS = "detector", "ears"


@dataclass(frozen=True)
class Patience:
    """How long silence may last.

    A node is ``disconnected`` after that long, ``lost`` after a further while.  ``away`` is how
    long the detector or the web processes may pause before it counts as an outage.  While no web
    process hears anything, nothing is decided for ``deaf`` longer; then it is, since a cluster
    of one dead node would otherwise wait for ever.
    """

    disconnected: timedelta = DISCONNECTED_AFTER
    lost: timedelta = timedelta(seconds=60)
    away: timedelta = timedelta(seconds=3)
    deaf: timedelta = timedelta(minutes=10)


@dataclass(frozen=True)
class Silence:
    """The nodes that this look found to be silent: newly disconnected, newly lost."""

    disconnected: tuple[UUID, ...]
    lost: tuple[UUID, ...]


def detect_silence(patience: Patience = Patience()) -> Silence:
    """Mark nodes not heard of, on the database's clock, and say which.

    Call it once a second.  What becomes of the executions of a lost node should be decided from
    ``connection = lost``, not from this answer alone: a crash may come between.
    """
    with transaction.atomic():
        listen(DETECTOR, patience.away)
        disconnected, lost = _mark(patience)
    for what, nodes in (("disconnected", disconnected), ("lost", lost)):
        for node in nodes:
            log.warning("node silent", node=str(node), now=what)
    return Silence(disconnected=disconnected, lost=lost)


def listen(who: str, away: timedelta = Patience.away) -> None:
    """Say that *who* is at work; after a break longer than *away* its time begins anew.

    So it does when the clock was set back by more than that.
    """
    with connection.cursor() as cursor:
        cursor.execute(_LISTEN, {"who": who, "away": away.total_seconds()})


def _mark(patience: Patience) -> tuple[tuple[UUID, ...], tuple[UUID, ...]]:
    """Silent nodes go from connected to disconnected, and from there to lost; which did."""
    locked = {node for (node,) in lock_rows(Lock.NODES, _silent(patience), "id")}
    marked: list[tuple[UUID, ...]] = []
    for before, after in _STEPS.items():
        # Again, in a new snapshot: who said hello while this waited for the locks is not silent.
        now = _silent(patience) if locked else {}
        mine = sorted(node for node, at in now.items() if node in locked and at == before)
        Node.objects.filter(pk__in=mine).update(connection=after.value)
        marked.append(tuple(mine))
    disconnected, lost = marked
    return disconnected, lost


_STEPS = {
    Connection.CONNECTED: Connection.DISCONNECTED,
    Connection.DISCONNECTED: Connection.LOST,
}


def _silent(patience: Patience) -> dict[UUID, str]:
    """The nodes that have been silent for longer than their connection allows, with that."""
    limits = (patience.disconnected, patience.disconnected + patience.lost)
    with connection.cursor() as cursor:
        cursor.execute(
            _SILENT,
            {
                "steps": [str(it) for it in _STEPS],
                "limits": [limit.total_seconds() for limit in limits],
                "away": patience.away.total_seconds(),
                "deaf": patience.deaf.total_seconds(),
            },
        )
        return dict(cursor.fetchall())


_LISTEN = """
    INSERT INTO nodes_listening AS l (who, since, at)
    VALUES (%(who)s, clock_timestamp(), clock_timestamp())
    ON CONFLICT (who) DO UPDATE SET
        since = CASE WHEN clock_timestamp() > l.at + make_interval(secs => %(away)s)
                OR clock_timestamp() < l.at - make_interval(secs => %(away)s)
            THEN clock_timestamp() ELSE l.since END,
        at = clock_timestamp()
"""

# What was in times to come was before the clock was set back, when the detector began anew.
_SILENT = f"""
    SELECT n.id, n.connection
    FROM unnest(%(steps)s::text[], %(limits)s::float8[]) AS allowed(connection, seconds)
    JOIN nodes_node n ON n.connection = allowed.connection
    JOIN nodes_nodeheartbeat h ON h.node_id = n.id
    CROSS JOIN (SELECT clock_timestamp() + make_interval(secs => %(away)s) AS at) AS to_come
    CROSS JOIN LATERAL (
        SELECT max(since) FILTER (WHERE since <= to_come.at) AS since,
            max(at) FILTER (WHERE who = '{EARS}') AS heard
        FROM nodes_listening
    ) AS l
    WHERE n.removed_at IS NULL
        AND CASE WHEN h.seen_at > to_come.at THEN l.since ELSE greatest(h.seen_at, l.since) END
            + make_interval(secs => allowed.seconds)
            + CASE WHEN l.heard > to_come.at
                    OR clock_timestamp() - l.heard > make_interval(secs => %(away)s)
                THEN make_interval(secs => %(deaf)s) ELSE interval '0' END
            < clock_timestamp()
"""  # noqa: S608 - only our own words
