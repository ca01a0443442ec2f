"""The journal: facts, appended in the transaction of their cause, read after a cursor.

Ids are committed out of order, so a reader that asks for ``id > n`` loses rows.  So whoever writes
first takes, by a trigger, a shared advisory lock that carries the last id that was given by then:
all that it draws are greater.  Readers go up to the smallest that is held, and a transaction that
writes no event keeps none of them back, however long it is open.  The cursor is opaque and carries
the cluster's epoch, so that it is refused after a restore.
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
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import OuterRef, Q, Subquery

from nodes.hints import Hint, after_commit
from orchestrator.explain.errors import Conflict, InvalidCursor

from .access import Namespace
from .cluster import Event
from .triggers import JOURNAL, LAST_EVENT


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
    longest that writes events.  Raises Conflict for a cursor of another epoch, or none of ours.
    """
    epoch, end = _end()  # Before the rows are looked at: all up to there can be seen then.
    last = _parse(cursor, epoch) if cursor else 0
    seen = Q() if namespaces is None else of_namespaces(namespaces, cluster=cluster)
    news = Event.objects.filter(seen, pk__gt=last, pk__lte=end)
    events = tuple(news.order_by("pk")[:limit])
    last = events[-1].pk if len(events) == limit else max(last, end)
    return Page(events, _format(epoch, last))


def latest() -> str:
    """A cursor at the end of the feed: what is committed later comes after it."""
    return _format(*_end())


@dataclass(frozen=True, slots=True)
class Writer:
    """A transaction that writes events: the process that it runs in, and after which id it does.

    There is no process where it was prepared and is to be committed by another.
    """

    application: str
    process: int | None
    after: int


def oldest_writer(database: BaseDatabaseWrapper = connection) -> Writer | None:
    """Who keeps readers from what is newer, if somebody does."""
    with database.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT coalesce(application_name, ''), pid, after
            FROM ({_WRITERS}) w LEFT JOIN pg_stat_activity USING (pid) ORDER BY after LIMIT 1
            """  # noqa: S608 - only our own columns
        )
        row = cursor.fetchone()
    return None if row is None else Writer(*row)


def _end() -> tuple[str, int]:
    """The cluster's epoch, and an id up to which all can be seen by statements to come.

    The last id is asked for before the locks, as these are asked with it: who begins to write
    between the two draws greater ones.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT epoch::text, least(given.last, held.after)
            FROM orchestrator_clustersetting, (SELECT {LAST_EVENT} AS last OFFSET 0) given,
            LATERAL (SELECT min(after) AS after FROM ({_WRITERS}) w WHERE given.last >= 0) held
            WHERE id = 1
            """  # noqa: S608 - only our own columns
        )
        epoch, end = cursor.fetchone()
    return epoch, end


#: Each lock that is held for the journal: by whom, and after which id its holder writes.
_WRITERS = f"""
    SELECT pid, ((classid::bigint & 65535) << 32) | objid::bigint AS after FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid::bigint >> 16 = {JOURNAL}
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""  # noqa: S608 - a number of ours


def _format(epoch: str, last: int) -> str:
    return base64.urlsafe_b64encode(f"{epoch}:{last}".encode()).decode().rstrip("=")


def _parse(cursor: str, epoch: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        theirs, *numbers = text.split(":")
        *before, last = map(int, numbers)
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidCursor(cursor=cursor[:80]) from None
    if theirs != epoch:
        raise Conflict(detail="the cursor is of an earlier life of this cluster; start again")
    if len(before) > 1 or not all(0 <= number < 2**63 for number in (*before, last)):
        raise InvalidCursor(cursor=cursor[:80])
    return _of_an_earlier_release(before[0], last) if before else last


def _of_an_earlier_release(xid: int, last: int) -> int:
    """Where a reader goes on that has seen all up to (*xid*, *last*): it may see some twice."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(min(id) FILTER (WHERE (xid, id) > (%s::text::xid8, %s)) - 1,"
            " max(id), 0) FROM orchestrator_event",
            [str(xid), last],
        )
        (before,) = cursor.fetchone()
    return int(before)
