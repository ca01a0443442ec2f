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


def forget_classes() -> None:
    """Forget what nobody has waited for in the last hour."""
    with connection.cursor() as cursor:
        # Who blocks a job sees to it that its class is younger, and holds it if it was not.
        cursor.execute(
            """
            DELETE FROM orchestrator_blockedclass WHERE digest = ANY (ARRAY(
                SELECT digest FROM orchestrator_blockedclass c
                WHERE seen_at < clock_timestamp() - interval '1 hour'
                  AND NOT EXISTS (SELECT FROM orchestrator_blockedjob b WHERE b.class = c.digest)
                FOR UPDATE OF c SKIP LOCKED))
            """
        )


class _HandOut:
    """Hands room out to blocked jobs, a bounded number at a time.

    What is left is carried over from one time to the next, so that no room is promised twice.
    Should the process die in between, ``unblock_overlooked`` finds the rest.
    """

    def __init__(self, rooms: list[Room]) -> None:
        self._rooms = rooms
        self._after = ""
        self._is_over = not rooms

    def finish(self) -> int:
        """Go on until there is no room left or nobody to use it; how many were woken.

        In no transaction: a plan may want the row of a job that is woken, and must not wait for
        a process that was stopped.
        """
        woken = 0
        while not self._is_over:
            woken += self.go_on()
        return woken

    def go_on(self) -> int:
        """Wake the next jobs, in one statement; how many."""
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
                DELETE FROM orchestrator_freednode WHERE id IN (
                    SELECT id FROM orchestrator_freednode
                    ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)
                RETURNING node_id)
            SELECT DISTINCT node_id FROM freed
            WHERE EXISTS (SELECT FROM orchestrator_blockedjob)
            """,
            [MOST_NODES],
        )
        return [node for (node,) in cursor.fetchall()]


_CLASS = ("need", "where", "why")

# A class for which nobody waits stays for an hour, so that it need not be made again.
_WAITED_FOR = """
    FROM orchestrator_blockedclass c
    WHERE EXISTS (SELECT FROM orchestrator_blockedjob b WHERE b.class = c.digest)
"""


def _classes(after: str) -> dict[str, Waits]:
    with connection.cursor() as cursor:
        cursor.execute(
            'SELECT digest, need::text, "where"::text, why::text'
            f" {_WAITED_FOR} AND digest > %s ORDER BY digest LIMIT %s",
            [after, MOST_CLASSES],
        )
        return {
            digest: Waits.load(dict(zip(_CLASS, map(json.loads, stored), strict=True)))
            for digest, *stored in cursor.fetchall()
        }


def _least_needed() -> Resources | None:
    """Of each dimension what the least demanding class needs; None when nobody is blocked."""
    amounts = ", ".join(f"min((need->>'{d}')::bigint)" for d in DIMENSIONS)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {amounts} {_WAITED_FOR}")
        found = cursor.fetchone()
    return None if None in found else Resources(*found)


def _candidates(able: Mapping[str, int]) -> list[Candidate]:
    """The first jobs of each class, as many as could be held, best priority first."""
    if not able:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT b.job_id, able.class, b.missing
            FROM unnest(%s::text[], %s::int[]) AS able(class, n)
            CROSS JOIN LATERAL (
                SELECT job_id, missing, urgency, since FROM orchestrator_blockedjob
                WHERE class = able.class
                ORDER BY urgency, since, job_id LIMIT able.n) AS b
            ORDER BY b.urgency, b.since, b.job_id LIMIT %s
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
                SELECT job_id FROM orchestrator_blockedjob
                WHERE job_id = ANY (%s) ORDER BY job_id FOR UPDATE SKIP LOCKED),
            gone AS (
                DELETE FROM orchestrator_blockedjob WHERE job_id IN (SELECT job_id FROM held))
            INSERT INTO orchestrator_brokertrigger
                (job_id, urgency, namespace, type, trigger, since)
            SELECT id, -priority, namespace_id, type, %s, clock_timestamp()
            FROM orchestrator_job WHERE id IN (SELECT job_id FROM held)
            """,
            [list(jobs), Trigger.CAPACITY.value],
        )
        return int(cursor.rowcount)
