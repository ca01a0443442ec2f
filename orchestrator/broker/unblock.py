"""Waking: who of the blocked jobs is made ready when there is more to give.

A wake-up reads classes, and of those that fit only as many jobs as can be held, so its cost
follows what was freed, not how many are blocked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q

from nodes.hints import Hint, after_commit
from nodes.protocol.resources import DIMENSIONS, Resources
from orchestrator.lifecycle import Trigger

from .blocked import Room, Waits, lock_waking, rooms, with_room_for

#: Bounds of one transaction: notes of freed nodes, classes looked at, jobs woken.
MOST_NODES, MOST_CLASSES, MOST_WOKEN = 1000, 1000, 1000


def unblock(patience: float = 0.0) -> int:
    """Make as many blocked jobs ready as freed nodes can hold, best priority first; how many.

    Waits at most *patience* seconds for plans that are about to block jobs; if one still is, the
    freed nodes stay noted.
    """
    with transaction.atomic():
        if not lock_waking(patience):
            return 0
        freed = _freed()
        if not freed:
            return 0
        handout = _HandOut(rooms(Q(pk__in=freed)))
        woken = handout.go_on()  # Here, so that the notes are not gone before anybody is woken.
    return woken + handout.finish()


def unblock_overlooked() -> int:
    """Wake blocked jobs that some node can hold although no note of it came; how many.

    The net below ``wake``, for nodes that were changed behind the broker's back and room that
    was promised to a job which did not take it.  It looks at one job of each class, and writes
    nothing unless somebody can be woken.  As it consumes no note, it needs no lock.
    """
    needed = _least_needed()
    if needed is None:
        return 0
    woken = _HandOut(rooms(with_room_for(needed))).finish()
    if woken:
        after_commit(Hint.WORK)
    return woken


class _HandOut:
    """Hands room out to blocked jobs, a bounded number in each transaction.

    What is left is carried over from one transaction to the next, so that no room is promised
    twice.  Should the process die in between, ``unblock_overlooked`` finds the rest.
    """

    def __init__(self, rooms: list[Room]) -> None:
        self._rooms = rooms
        self._after = ""
        self._is_over = not rooms

    def finish(self) -> int:
        """Go on until there is no room left or nobody to use it; how many were woken."""
        woken = 0
        while not self._is_over:
            with transaction.atomic():
                woken += self.go_on()
        return woken

    def go_on(self) -> int:
        """Wake the next jobs, in the caller's transaction; how many."""
        if self._is_over:
            return 0
        classes = _classes(self._after)
        able = {digest: n for digest, waits in classes.items() if (n := _held(waits, self._rooms))}
        candidates = _candidates(able)
        woken = _make_ready(choose(self._rooms, candidates, classes))
        if len(candidates) < MOST_WOKEN or not woken:
            self._after = next(reversed(classes), "")
            self._is_over = len(classes) < MOST_CLASSES
        return woken


class Candidate(NamedTuple):
    """A blocked job that may be woken: its class, and how many executions it misses."""

    job: UUID
    digest: str
    missing: int


def choose(
    rooms: Sequence[Room], candidates: Iterable[Candidate], classes: Mapping[str, Waits]
) -> list[UUID]:
    """The *candidates* that *rooms* can hold, first come first served; *rooms* keep the rest.

    A node that is too full for a class is not asked about it again, so the work is that of
    candidates and nodes added, not multiplied.
    """
    first = dict.fromkeys(classes, 0)
    chosen = []
    for job, digest, missing in candidates:
        waits, left = classes[digest], missing
        while left and first[digest] < len(rooms):
            room = rooms[first[digest]]
            taken = min(left, waits.held_by(room))
            room.free -= Resources(*(amount * taken for amount in waits.need.astuple()))
            left -= taken
            if left:
                first[digest] += 1
        if left < missing:
            chosen.append(job)
    return chosen


def _held(waits: Waits, rooms: Iterable[Room]) -> int:
    """How many executions *rooms* can hold, as far as that matters."""
    held = 0
    for room in rooms:
        held += waits.held_by(room)
        if held >= MOST_WOKEN:
            return MOST_WOKEN
    return held


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


# One of each class that is waited for, in their order, found by hopping through the index.
_HOP = """
    WITH RECURSIVE hop AS (
        (SELECT blocked_class, blocked_on FROM orchestrator_brokerrow
         WHERE blocked_on IS NOT NULL AND blocked_class > %s ORDER BY blocked_class LIMIT 1)
        UNION ALL
        SELECT next.blocked_class, next.blocked_on FROM hop CROSS JOIN LATERAL (
            SELECT blocked_class, blocked_on FROM orchestrator_brokerrow r
            WHERE r.blocked_on IS NOT NULL AND r.blocked_class > hop.blocked_class
            ORDER BY blocked_class LIMIT 1) AS next)
"""


def _classes(after: str) -> dict[str, Waits]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"{_HOP} SELECT blocked_class, blocked_on::text FROM hop LIMIT %s",  # noqa: S608
            [after, MOST_CLASSES],
        )
        return {digest: Waits.load(json.loads(stored)) for digest, stored in cursor.fetchall()}


def _least_needed() -> Resources | None:
    """Of each dimension what the least demanding class needs; None when nobody is blocked."""
    amounts = ", ".join(f"min((blocked_on->'need'->>'{d}')::bigint)" for d in DIMENSIONS)
    with connection.cursor() as cursor:
        cursor.execute(f"{_HOP} SELECT {amounts} FROM hop", [""])  # noqa: S608 - our own columns
        found = cursor.fetchone()
    return None if None in found else Resources(*found)


def _candidates(able: Mapping[str, int]) -> list[Candidate]:
    """The first jobs of each class, as many as could be held, best priority first."""
    if not able:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT r.job_id, able.class, r.missing
            FROM unnest(%s::text[], %s::int[]) AS able(class, n)
            CROSS JOIN LATERAL (
                SELECT job_id, (blocked_on->>'missing')::int AS missing, priority, ready_since
                FROM orchestrator_brokerrow b
                WHERE b.blocked_on IS NOT NULL AND b.blocked_class = able.class
                ORDER BY b.priority DESC, b.ready_since, b.job_id LIMIT able.n) AS r
            ORDER BY r.priority DESC, r.ready_since, r.job_id LIMIT %s
            """,
            [list(able), list(able.values()), MOST_WOKEN],
        )
        return [Candidate(*row) for row in cursor.fetchall()]


def _make_ready(jobs: Sequence[UUID]) -> int:
    if not jobs:
        return 0
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
        return int(cursor.rowcount)
