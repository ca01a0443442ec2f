"""Blocked jobs: what each waits for, and who is woken when there is more to give.

Jobs that wait for the same amounts under the same constraints are one class.  A wake-up reads
classes, and of those that fit only as many jobs as can be held, so its cost follows what was
freed, not how many are blocked.

No wake-up is lost: a plan that blocks holds LOCK shared, from before it looks whether nodes have
changed until it commits; the waker holds it alone.  A change that the plan did not see is
therefore consumed only after the blocked row can be seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q

from nodes.models import Node
from nodes.protocol.lifecycle import Approval, Connection
from nodes.protocol.resources import DIMENSIONS, Resources
from orchestrator.lifecycle import Trigger
from orchestrator.scheduling.feasibility import Demand
from orchestrator.scheduling.plan import Blocked
from orchestrator.spec import selectors

#: The advisory lock of those that block and those that wake.
LOCK = 0x6D757374_626C6B

#: Bounds of one wake-up: freed nodes, classes looked at, jobs woken.
MOST_NODES, MOST_CLASSES, MOST_WOKEN = 1000, 256, 1000


def lock_blocking() -> None:
    """Let nobody wake jobs until this transaction ends.  Taken before any other lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [LOCK])


@dataclass(frozen=True, slots=True)
class Waits:
    """What a blocked job waits for: the row's ``blocked_on``."""

    need: Resources
    missing: int = 1
    where: tuple[str, ...] = ()
    impossible: bool = False
    sentence: str = ""

    @classmethod
    def of(cls, blocked: Blocked, demand: Demand | None) -> Waits:
        where = () if demand is None else (f"{demand.driver_label} = true", *demand.requirements)
        return cls(
            need=blocked.need,
            missing=max(1, blocked.missing),
            where=tuple(str(requirement) for requirement in where),
            impossible=blocked.impossible,
            sentence=blocked.sentence,
        )

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> Waits:
        return cls(
            need=Resources(**stored["need"]),
            missing=stored["missing"],
            where=tuple(stored["where"]),
            impossible=stored["impossible"],
            sentence=stored["sentence"],
        )

    def dump(self) -> dict[str, Any]:
        return {
            "need": dict(zip(DIMENSIONS, self.need.astuple(), strict=True)),
            "missing": self.missing,
            "where": list(self.where),
            "impossible": self.impossible,
            "sentence": self.sentence,
        }

    @property
    def digest(self) -> str:
        """The name of its class."""
        same = json.dumps([self.need.astuple(), self.where])
        return hashlib.sha256(same.encode()).hexdigest()[:32]

    def held_by(self, room: Room) -> int:
        """How many executions *room* can hold."""
        if not all(one.matches(room.labels) for one in _requirements(self.where)):
            return 0
        pairs = zip(self.need.astuple(), room.free.astuple(), strict=True)
        return max(0, min((free // need for need, free in pairs if need), default=self.missing))


@dataclass(slots=True)
class Room:
    """What a node that takes new work has left to give."""

    labels: Mapping[str, str]
    free: Resources


def room_since(revision: int) -> list[Room]:
    """The room on nodes that have changed since a view of the cluster with this *revision*."""
    return _rooms(Q(changed__gte=revision))


def wake(*, patiently: bool = True) -> int:
    """Make as many blocked jobs ready as freed nodes can hold, best priority first; how many.

    Unless *patiently*, does nothing while somebody is about to block; the freed nodes stay noted.
    """
    with transaction.atomic():
        if not _lock(patiently):
            return 0
        freed = _freed()
        if not freed:
            return 0
        rooms = _rooms(Q(pk__in=freed))
        chosen, more = _choose(rooms)
        _make_ready(chosen)
        if more:
            _note_again(freed)
        return len(chosen)


def _lock(patiently: bool) -> bool:
    with connection.cursor() as cursor:
        if patiently:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            return True
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
        return bool(cursor.fetchone()[0])


def _freed() -> list[UUID]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH freed AS (
                DELETE FROM orchestrator_brokertrigger WHERE id IN (
                    SELECT id FROM orchestrator_brokertrigger WHERE node_id IS NOT NULL
                    ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)
                RETURNING node_id)
            SELECT DISTINCT node_id FROM freed
            WHERE EXISTS (SELECT FROM orchestrator_brokerrow WHERE blocked_on IS NOT NULL)
            """,
            [MOST_NODES],
        )
        return [node for (node,) in cursor.fetchall()]


def _rooms(which: Q) -> list[Room]:
    nodes = Node.objects.filter(
        which,
        approval=Approval.APPROVED,
        connection=Connection.CONNECTED,
        eligible=True,
        draining=False,
        quarantined="",
    ).order_by("pk")[:MOST_NODES]
    return [
        Room({**node.attributes, "name": node.name, **node.labels}, node.capacity - node.allocated)
        for node in nodes
    ]


def _choose(rooms: Sequence[Room]) -> tuple[list[UUID], bool]:
    """The blocked jobs that *rooms* can hold, first come first placed; whether there are more."""
    able: dict[str, int] = {}
    for digest, waits in _classes():
        held = sum(min(waits.held_by(room), MOST_WOKEN) for room in rooms)
        if held:
            able[digest] = min(held, MOST_WOKEN)
    if not able:
        return [], False
    candidates = _candidates(able)
    chosen = []
    for job, waits in candidates:
        missing = waits.missing
        for room in rooms:
            taken = min(missing, waits.held_by(room))
            if taken:
                room.free -= Resources(*(amount * taken for amount in waits.need.astuple()))
                missing -= taken
        if missing < waits.missing:
            chosen.append(job)
    return chosen, len(candidates) >= MOST_WOKEN


def _classes() -> list[tuple[str, Waits]]:
    """One of each class that is waited for, found by hopping through the index."""
    with connection.cursor() as cursor:
        cursor.execute(_CLASSES, [MOST_CLASSES])
        return [(digest, Waits.load(json.loads(stored))) for digest, stored in cursor.fetchall()]


_CLASSES = """
    WITH RECURSIVE hop AS (
        (SELECT blocked_class, blocked_on FROM orchestrator_brokerrow
         WHERE blocked_on IS NOT NULL ORDER BY blocked_class LIMIT 1)
        UNION ALL
        SELECT next.blocked_class, next.blocked_on FROM hop CROSS JOIN LATERAL (
            SELECT blocked_class, blocked_on FROM orchestrator_brokerrow r
            WHERE r.blocked_on IS NOT NULL AND r.blocked_class > hop.blocked_class
            ORDER BY blocked_class LIMIT 1) AS next)
    SELECT blocked_class, blocked_on::text FROM hop LIMIT %s
"""


def _candidates(able: Mapping[str, int]) -> list[tuple[UUID, Waits]]:
    """The first jobs of each class, as many as could be held, best priority first."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT r.job_id, r.blocked_on::text FROM unnest(%s::text[], %s::int[]) AS able(class, n)
            CROSS JOIN LATERAL (
                SELECT job_id, blocked_on, priority, ready_since FROM orchestrator_brokerrow b
                WHERE b.blocked_on IS NOT NULL AND b.blocked_class = able.class
                ORDER BY b.priority DESC, b.ready_since, b.job_id LIMIT able.n) AS r
            ORDER BY r.priority DESC, r.ready_since, r.job_id LIMIT %s
            """,
            [list(able), list(able.values()), MOST_WOKEN],
        )
        return [(job, Waits.load(json.loads(stored))) for job, stored in cursor.fetchall()]


def _make_ready(jobs: Sequence[UUID]) -> None:
    if not jobs:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH held AS MATERIALIZED (
                SELECT job_id FROM orchestrator_brokerrow
                WHERE job_id = ANY (%s) AND blocked_on IS NOT NULL
                ORDER BY job_id FOR UPDATE SKIP LOCKED)
            UPDATE orchestrator_brokerrow r SET want = r.want + 1,
                triggers = jsonb_build_object(%s::text, 1), ready_since = clock_timestamp(),
                blocked_on = NULL, blocked_class = '', not_before = NULL, not_before_trigger = ''
            FROM held WHERE r.job_id = held.job_id
            """,
            [list(jobs), Trigger.CAPACITY.value],
        )


def _note_again(nodes: Sequence[UUID]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orchestrator_brokertrigger (node_id, trigger)"
            " SELECT node, %s FROM unnest(%s::uuid[]) AS node",
            [Trigger.CAPACITY.value, list(nodes)],
        )


@lru_cache(maxsize=1024)
def _requirements(where: tuple[str, ...]) -> tuple[selectors.Requirement, ...]:
    return tuple(one for text in where for one in selectors.read(text))
