"""The two lanes of executions, written: ``desire`` and ``observe``.

Both change rows by condition, many in one statement; the trigger in the database checks each
move, numbers it and writes the history.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any
from uuid import UUID

from django.db import connection

from orchestrator.lifecycle import OBSERVED, Desired, Observed, Writer


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of how an execution ended."""

    exit_code: int | None = None
    code: str = ""
    message: str = ""
    hint: str = ""
    retryable: bool = True
    ran: float | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """One move of the observed lane.

    ``releases``: its resources are free again with it, and its node need be told nothing more of
    it.  ``told_rev``: the node has taken the order of that revision, which is why it moves.
    ``cause``: a `StopCause` when somebody ends it so; *reason* is the detail then.
    """

    execution: UUID
    before: Observed
    after: Observed
    writer: Writer
    actor: str = ""
    reason: str = ""
    releases: bool = False
    told_rev: int = 0
    outcome: Outcome = Outcome()
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """One move of the desired lane, as order *order_rev* to its node.

    ``cause`` is the `StopCause` of a stop; *reason* is the detail then.
    """

    execution: UUID
    before: Desired
    after: Desired
    order_rev: int
    reason: str = ""
    cause: str = ""


def observe(observations: Sequence[Observation]) -> int:
    """Write the observed lane of executions that the caller has locked; how many moved.

    Observations of one execution are one after the other, in their order, each with its own
    revision and history row; up to one that ends it they are one update.
    """
    moved = 0
    for wave in _waves(observations):
        moved += _execute(
            """
            UPDATE orchestrator_execution e
            SET observed = m.after, by_writer = m.writer, by_actor = m.actor,
                by_reason = m.reason, by_steps = m.steps,
                reserved = e.reserved AND NOT m.releases,
                exit_code = coalesce(m.exit_code, e.exit_code),
                code = CASE WHEN m.code = '' THEN e.code ELSE m.code END,
                message = CASE WHEN m.message = '' THEN e.message ELSE m.message END,
                hint = CASE WHEN m.hint = '' THEN e.hint ELSE m.hint END,
                retryable = e.retryable AND m.retryable, ran = coalesce(m.ran, e.ran),
                stop_cause = CASE WHEN m.cause = '' THEN e.stop_cause ELSE m.cause END,
                stop_detail = CASE WHEN m.cause = '' THEN e.stop_detail ELSE m.reason END,
                told_rev = CASE WHEN m.releases THEN greatest(e.told_rev, e.order_rev)
                                ELSE greatest(e.told_rev, m.told_rev) END
            FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                        %s::jsonb[], %s::bool[], %s::int[], %s::text[], %s::text[], %s::text[],
                        %s::bool[], %s::float8[], %s::bigint[], %s::text[])
                AS m(id, before, after, writer, actor, reason, steps, releases, exit_code, code,
                     message, hint, retryable, ran, told_rev, cause)
            WHERE e.id = m.id AND e.observed = m.before
            """,
            [
                [way[-1].execution for way in wave],
                [str(way[0].before) for way in wave],
                [str(way[-1].after) for way in wave],
                [str(way[-1].writer) for way in wave],
                [way[-1].actor for way in wave],
                [way[-1].reason for way in wave],
                [_steps(way) for way in wave],
                [way[-1].releases for way in wave],
                [way[-1].outcome.exit_code for way in wave],
                [way[-1].outcome.code for way in wave],
                [way[-1].outcome.message for way in wave],
                [way[-1].outcome.hint for way in wave],
                [way[-1].outcome.retryable for way in wave],
                [way[-1].outcome.ran for way in wave],
                [max(o.told_rev for o in way) for way in wave],
                [str(way[-1].cause) for way in wave],
            ],
        )
    return moved


def desire(wishes: Sequence[Wish]) -> int:
    """Write the desired lane of executions that the caller has locked; how many moved."""
    if not wishes:
        return 0
    return _execute(
        """
        UPDATE orchestrator_execution e
        SET desired = m.after, order_rev = m.order_rev, by_writer = %s,
            by_actor = '', by_reason = m.reason, stop_cause = m.cause,
            stop_detail = CASE WHEN m.cause = '' THEN '' ELSE m.reason END
        FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[])
            AS m(id, before, after, order_rev, reason, cause)
        WHERE e.id = m.id AND e.desired = m.before
        """,
        [
            str(Writer.STATE_UPDATER),
            [w.execution for w in wishes],
            [str(w.before) for w in wishes],
            [str(w.after) for w in wishes],
            [w.order_rev for w in wishes],
            [w.reason for w in wishes],
            [str(w.cause) for w in wishes],
        ],
    )


def told(revisions: Mapping[UUID, int]) -> None:
    """Note that nodes have taken the orders about these executions up to a revision."""
    if revisions:
        _execute(
            "UPDATE orchestrator_execution e SET told_rev = greatest(e.told_rev, m.rev)"
            " FROM unnest(%s::uuid[], %s::bigint[]) AS m(id, rev) WHERE e.id = m.id"
            " AND e.told_rev < m.rev",
            [list(revisions), list(revisions.values())],
        )


def order(revisions: Mapping[UUID, int]) -> None:
    """Make these the newest orders about executions that the caller has locked."""
    if revisions:
        _execute(
            "UPDATE orchestrator_execution e SET order_rev = m.rev"
            " FROM unnest(%s::uuid[], %s::bigint[]) AS m(id, rev) WHERE e.id = m.id",
            [list(revisions), list(revisions.values())],
        )


def give_up(executions: Sequence[UUID]) -> None:
    """Count the resources of ended executions on their nodes no longer; `release` them, too.

    Their nodes need be told nothing more of them.
    """
    if executions:
        _execute(
            "UPDATE orchestrator_execution"
            " SET reserved = false, told_rev = greatest(told_rev, order_rev) WHERE id = ANY(%s)",
            [list(executions)],
        )


Way = list[Observation]
"""Observations of one execution that are written at once: none but the last ends it."""


def _waves(observations: Sequence[Observation]) -> Iterable[list[Way]]:
    """Ways, so that no wave has an execution twice, keeping the order of each one's own."""
    ways: dict[UUID, list[Way]] = {}
    for observation in observations:
        mine = ways.setdefault(observation.execution, [[]])
        if mine[-1] and not _may_be_passed(mine[-1][-1]):
            mine.append([])
        mine[-1].append(observation)
    for wave in zip_longest(*ways.values()):
        yield [way for way in wave if way is not None]


def _may_be_passed(observation: Observation) -> bool:
    """Whether nothing is to be kept of it but that it was so."""
    return (
        observation.after not in OBSERVED.terminal
        and not observation.releases
        and not observation.cause
        and observation.outcome == Outcome()
    )


def _steps(way: Way) -> str | None:
    """The moves before the last, for the trigger; None where there are none."""
    if len(way) == 1:
        return None
    return json.dumps(
        [
            {"after": o.after, "writer": o.writer, "actor": o.actor, "reason": o.reason}
            for o in way[:-1]
        ]
    )


def _execute(sql: str, parameters: Sequence[Any]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return int(cursor.rowcount)
