"""Blocked jobs: what each waits for, and the lock between those that block and those that wake.

Jobs that wait for the same amounts under the same constraints are one class.

No wake-up is lost: a plan that blocks holds LOCK shared, from before it looks whether nodes have
changed until it commits; who consumes the note of a freed node holds it alone.  A change that the
plan did not see is therefore consumed only after the blocked row can be seen.  Nobody waits for it
longer than a moment, as its holder may be stopped: a waker that does not get it leaves the nodes
noted, a plan has its job looked at again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from django.db import OperationalError, connection, transaction
from django.db.models import BooleanField, F, Q
from django.db.models.expressions import RawSQL
from psycopg.errors import LockNotAvailable

from nodes import readiness
from nodes.labels import selectable
from nodes.models import UNSEEN, Node
from nodes.protocol.resources import DIMENSIONS, Resources
from orchestrator.explain import reasons
from orchestrator.explain.reasons import Impossible, Shortage
from orchestrator.scheduling.feasibility import Demand
from orchestrator.scheduling.plan import Blocked
from orchestrator.spec import selectors

#: The advisory lock of those that block and those that wake.
LOCK = 0x6D757374_626C6B

#: Seconds that a plan waits for a waker, which is done in a moment unless its process is stopped.
MOMENT = 0.5


@dataclass(frozen=True, slots=True)
class Waits:
    """What a blocked job waits for: its class, and how many executions it misses."""

    need: Resources
    missing: int = 1
    where: tuple[str, ...] = ()
    why: Shortage = field(default_factory=reasons.NoNode)
    since: str = ""

    @classmethod
    def of(cls, blocked: Blocked, demand: Demand | None) -> Waits:
        where = () if demand is None else (f"{demand.driver_label} = true", *demand.requirements)
        return cls(
            need=blocked.need,
            missing=max(1, blocked.missing),
            where=tuple(str(requirement) for requirement in where),
            why=blocked.why,
            since=blocked.since.isoformat() if blocked.since else "",
        )

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> Waits:
        return cls(
            need=Resources(**stored["need"]),
            missing=stored.get("missing", 1),
            where=tuple(stored["where"]),
            why=reasons.load_shortage(stored.get("why") or stored.get("sentence")),
            since=stored.get("since", ""),
        )

    def dump(self) -> dict[str, Any]:
        return {
            "need": dict(zip(DIMENSIONS, self.need.astuple(), strict=True)),
            "missing": self.missing,
            "where": list(self.where),
            "impossible": isinstance(self.why, Impossible),
            "why": reasons.dump([self.why])[0],
            "since": self.since,
        }

    @property
    def digest(self) -> str:
        """The name of its class."""
        same = json.dumps([self.need.astuple(), self.where])
        return hashlib.sha256(same.encode()).hexdigest()[:32]

    def held_by(self, room: Room) -> int:
        """How many executions *room* can hold."""
        pairs = zip(self.need.astuple(), room.free.astuple(), strict=True)
        times = min((free // need for need, free in pairs if need), default=1 << 30)
        if times <= 0 or not all(one.matches(room.labels) for one in _requirements(self.where)):
            return 0
        return times


@dataclass(slots=True)
class Room:
    """What a node that takes new work has left to give."""

    labels: Mapping[str, str]
    free: Resources


def room_since(revision: str, least: Resources) -> list[Room]:
    """The nodes changed since a view of the cluster with this *revision* that can hold *least*.

    The revision is the snapshot of the database in which the view was taken.
    """
    unseen = RawSQL(  # noqa: S611 - our own words
        UNSEEN % {"seen": "%s"},
        [revision, revision],
        output_field=BooleanField(),
    )
    return rooms(Q(unseen) & with_room_for(least))


def least(needs: Iterable[Resources]) -> Resources:
    """The least of each dimension: what has no room for it has none for any of *needs*."""
    return Resources(*map(min, zip(*(need.astuple() for need in needs), strict=True)))


def rooms(which: Q) -> list[Room]:
    """The room on those of *which* nodes that take new work."""
    nodes = Node.objects.filter(which, **readiness.READY).order_by("pk")
    return [
        Room(
            selectable(node.name, node.labels, node.attributes),
            node.capacity - node.allocated,
        )
        for node in nodes
    ]


def with_room_for(need: Resources) -> Q:
    """Nodes that can hold *need*."""
    pairs = zip(DIMENSIONS, need.astuple(), strict=True)
    return Q(*(Q(**{f"capacity_{d}__gte": F(f"allocated_{d}") + amount}) for d, amount in pairs))


def lock_blocking() -> None:
    """Let nobody consume a note of a freed node until this transaction ends.

    Taken before any other lock.  If the lock does not come in a moment, ``ack`` blocks no job.
    """
    if not may_block():
        _wait_for("pg_advisory_xact_lock_shared", MOMENT)


def may_block() -> bool:
    """Whether nobody can consume a note of a freed node until this transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock_shared(%s)", [LOCK])
        (is_locked,) = cursor.fetchone()
    return bool(is_locked)


def lock_waking(patience: float) -> bool:
    """Be the only one who wakes or blocks until this transaction ends; whether it is so.

    Waits at most *patience* seconds for the plans that are about to block.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
        (is_locked,) = cursor.fetchone()
    return is_locked or (patience > 0 and _wait_for("pg_advisory_xact_lock", patience))


def _wait_for(lock: str, seconds: float) -> bool:
    """Whether the *lock* came within *seconds*.  Who waits is served before those who try later."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {round(1000 * seconds)}")
            cursor.execute(f"SELECT {lock}(%s)", [LOCK])
            cursor.execute("SET LOCAL lock_timeout TO DEFAULT")
    except OperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            return False
        raise
    return True


@lru_cache(maxsize=1024)
def _requirements(where: tuple[str, ...]) -> tuple[selectors.Requirement, ...]:
    return tuple(one for text in where for one in selectors.read(text))
