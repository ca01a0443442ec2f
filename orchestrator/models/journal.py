"""The journal: facts, appended in the transaction of their cause, read after a cursor.

Ids are committed out of order, so a reader that asks for ``id > n`` loses rows.  Readers follow
``(xid, id)`` below the oldest running transaction instead; the cursor is opaque and carries the
cluster's epoch, so that it is refused after a restore.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import OuterRef, Q, Subquery

from nodes.hints import Hint, after_commit
from orchestrator.explain.errors import Conflict, InvalidCursor

from .access import Namespace
from .cluster import ClusterSetting, Event


def record(events: Iterable[Event]) -> None:
    """Append *events* to the journal in the caller's transaction, and hint that there is news."""
    rows = list(events)
    if not rows:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO orchestrator_event
                (topic, what, actor, message, job_id, execution_id, node_id, data, namespace)
            SELECT topic, what, actor, message, job_id, execution_id, node_id, data,
                   coalesce(namespace, (SELECT namespace_id FROM orchestrator_job j
                                        WHERE j.id = e.job_id))
            FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::uuid[],
                        %s::uuid[], %s::uuid[], %s::jsonb[], %s::text[])
                AS e(topic, what, actor, message, job_id, execution_id, node_id, data, namespace)
            """,
            [
                [it.topic for it in rows],
                [it.what for it in rows],
                [it.actor for it in rows],
                [it.message for it in rows],
                [it.job_id for it in rows],
                [it.execution_id for it in rows],
                [it.node_id for it in rows],
                [json.dumps(it.data, default=str) for it in rows],
                [it.namespace for it in rows],
            ],
        )
    after_commit(Hint.VIEW)


def fact(
    topic: str,
    what: str,
    message: str,
    *,
    actor: str = "",
    job: UUID | None = None,
    execution: UUID | None = None,
    node: UUID | None = None,
    namespace: str | None = None,
    **data: Any,
) -> Event:
    """An event that is not stored yet: *message* is a sentence for people.

    Where it names a *job* it is of the job's namespace, and is shown to nobody else.
    """
    return Event(
        topic=topic,
        what=what,
        message=message,
        actor=actor,
        job_id=job,
        execution_id=execution,
        node_id=node,
        namespace=namespace,
        data=data,
    )


@dataclass(frozen=True, slots=True)
class Page:
    """Events in the order of the feed, and where to go on."""

    events: tuple[Event, ...]
    cursor: str


def of_namespaces(names: Iterable[str], *, cluster: bool) -> Q:
    """The events of these namespaces, and those of none if *cluster* is true.

    Not those of a removed namespace whose name one of them has.
    """
    begin = Namespace.objects.filter(pk=OuterRef("namespace")).values("journal_from")
    found = Q(namespace__in=sorted(names), pk__gt=Subquery(begin))
    return found | Q(namespace=None) if cluster else found


def after(
    cursor: str | None,
    limit: int = 100,
    *,
    namespaces: Iterable[str] | None = None,
    cluster: bool = True,
) -> Page:
    """Up to *limit* events after *cursor* (None: from the beginning).

    With *namespaces* only theirs, and those of no namespace if *cluster* is true.

    Never misses a committed row, whatever order transactions commit in; it may lag behind the
    longest running one.  Raises Conflict for a cursor of another epoch, or none of ours.
    """
    epoch = ClusterSetting.objects.values_list("epoch", flat=True).get(pk=1)
    xid, last = (0, 0) if not cursor else _parse(cursor, str(epoch))
    # First: what is passed over below is of before, and need not be looked at again.
    end = None if namespaces is None else _end()
    seen = Q() if namespaces is None else of_namespaces(namespaces, cluster=cluster)
    news = Event.objects.filter(seen).extra(
        where=[
            "(xid, id) > (%s::text::xid8, %s)",
            "xid < pg_snapshot_xmin(pg_current_snapshot())",
        ],
        params=[str(xid), last],
    )
    events = list(news.order_by("xid", "pk")[:limit])
    if events:
        xid, last = events[-1].xid, events[-1].pk
    if end is not None and len(events) < limit:
        xid, last = max((xid, last), (end, 0))
    return Page(tuple(events), _format(str(epoch), xid, last))


def latest() -> str:
    """A cursor at the end of the feed: what is committed later comes after it."""
    epoch = ClusterSetting.objects.values_list("epoch", flat=True).get(pk=1)
    return _format(str(epoch), _end(), 0)


def _end() -> int:
    """The oldest transaction that still runs."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
        (xid,) = cursor.fetchone()
    return int(xid)


def _format(epoch: str, xid: int, last: int) -> str:
    return base64.urlsafe_b64encode(f"{epoch}:{xid}:{last}".encode()).decode().rstrip("=")


def _parse(cursor: str, epoch: str) -> tuple[int, int]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        theirs, xid, last = text.split(":")
        position = int(xid), int(last)
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidCursor(cursor=cursor[:80]) from None
    if theirs != epoch:
        raise Conflict(detail="the cursor is of an earlier life of this cluster; start again")
    if not 0 <= position[0] < 2**63 or not 0 <= position[1] < 2**63:
        raise InvalidCursor(cursor=cursor[:80])
    return position
