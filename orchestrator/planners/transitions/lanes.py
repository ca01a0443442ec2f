"""The two lanes of executions, written: ``desire`` and ``observe``.

Both change rows by condition, many in one statement; the trigger in the database checks each
move, numbers it and writes the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection

from orchestrator.lifecycle import Desired, Observed, Writer


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

    Observations of one execution are written one after the other, in their order, each with its
    own revision and history row.
    """
    moved = 0
    for wave in _waves(observations):
        moved += _execute(
            """
            UPDATE orchestrator_execution e
            SET observed = m.after, by_writer = m.writer, by_actor = m.actor,
                by_reason = m.reason, reserved = e.reserved AND NOT m.releases,
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
                        %s::bool[], %s::int[], %s::text[], %s::text[], %s::text[], %s::bool[],
                        %s::float8[], %s::bigint[], %s::text[])
                AS m(id, before, after, writer, actor, reason, releases, exit_code, code,
                     message, hint, retryable, ran, told_rev, cause)
            WHERE e.id = m.id AND e.observed = m.before
            """,
            [
                [o.execution for o in wave],
                [str(o.before) for o in wave],
                [str(o.after) for o in wave],
                [str(o.writer) for o in wave],
                [o.actor for o in wave],
                [o.reason for o in wave],
                [o.releases for o in wave],
                [o.outcome.exit_code for o in wave],
                [o.outcome.code for o in wave],
                [o.outcome.message for o in wave],
                [o.outcome.hint for o in wave],
                [o.outcome.retryable for o in wave],
                [o.outcome.ran for o in wave],
                [o.told_rev for o in wave],
                [str(o.cause) for o in wave],
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


def _waves(observations: Sequence[Observation]) -> Iterable[list[Observation]]:
    """Split so that no wave has an execution twice, keeping the order of each one's own."""
    waves: list[list[Observation]] = []
    depth: dict[UUID, int] = {}
    for observation in observations:
        level = depth.get(observation.execution, 0)
        depth[observation.execution] = level + 1
        if level == len(waves):
            waves.append([])
        waves[level].append(observation)
    return waves


def _execute(sql: str, parameters: Sequence[Any]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return int(cursor.rowcount)
