"""The only code that moves executions between states: ``desire`` and ``observe``.

Both change rows by condition, many in one statement; the trigger in the database checks each
move, numbers it and writes the history.  Callers lock first, in the order of ``nodes.locks``:
executions, then nodes (`lock_executions`, `lock_nodes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection

from nodes.locks import Lock, lock_rows
from nodes.protocol.resources import Resources

from .lifecycle import OBSERVED, Desired, Observed, Writer, written_by


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


@dataclass(frozen=True, slots=True)
class Wish:
    """One move of the desired lane, as order *order_rev* to its node."""

    execution: UUID
    before: Desired
    after: Desired
    order_rev: int
    reason: str = ""


@dataclass(slots=True)
class LockedExecution:
    """What moving an execution needs to know of it, true until the transaction ends."""

    id: UUID
    job: UUID
    node: UUID
    desired: Desired
    observed: Observed
    reserved: bool
    resources: Resources


@dataclass(slots=True)
class LockedNode:
    """What placing on a node needs to know of it, true until the transaction ends.

    ``closed`` says why it takes no new work, and is empty when it does.
    """

    id: UUID
    name: str
    closed: str
    order_rev: int
    free: Resources


def lock_executions(ids: Iterable[UUID]) -> dict[UUID, LockedExecution]:
    """Lock these executions, in the order of their ids, until the transaction ends."""
    rows = lock_rows(
        Lock.EXECUTIONS,
        ids,
        "id, job_id, node_id, desired, observed, reserved, cpu, memory, disk, gpu",
    )
    return {
        key: LockedExecution(
            key, job, node, Desired(desired), Observed(observed), reserved, Resources(*amounts)
        )
        for key, job, node, desired, observed, reserved, *amounts in rows
    }


def lock_nodes(ids: Iterable[UUID]) -> dict[UUID, LockedNode]:
    """Lock these nodes, in the order of their ids, until the transaction ends."""
    rows = lock_rows(
        Lock.NODES,
        ids,
        "id, name, CASE WHEN removed_at IS NOT NULL THEN 'was removed'"
        " WHEN approval <> 'approved' THEN 'is not approved any longer'"
        " WHEN quarantined <> '' THEN 'is quarantined'"
        " WHEN connection <> 'connected' THEN 'is ' || connection"
        " WHEN degraded <> '' THEN 'is degraded: ' || degraded"
        " WHEN draining OR NOT eligible THEN 'takes no new work any longer' ELSE '' END,"
        " order_rev, capacity_cpu - allocated_cpu, capacity_memory - allocated_memory,"
        " capacity_disk - allocated_disk, capacity_gpu - allocated_gpu",
    )
    return {
        key: LockedNode(key, name, closed, order_rev, Resources(*free))
        for key, name, closed, order_rev, *free in rows
    }


def steps(
    execution: UUID,
    observed: Observed,
    events: Iterable[str],
    *,
    actor: str,
    reason: str,
    releases: bool = False,
    outcome: Outcome | None = None,
) -> list[Observation]:
    """*events* one after the other; the one that ends it *releases*, and has the *outcome*."""
    moves = []
    for event in events:
        before, observed = observed, OBSERVED.after(observed, event)
        over = observed in OBSERVED.terminal
        moves.append(
            Observation(
                execution=execution,
                before=before,
                after=observed,
                writer=written_by(event),
                actor=actor,
                reason=reason,
                releases=releases and over,
                outcome=outcome if over and outcome else Outcome(),
            )
        )
    return moves


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
                told_rev = CASE WHEN m.releases THEN greatest(e.told_rev, e.order_rev)
                                ELSE greatest(e.told_rev, m.told_rev) END
            FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                        %s::bool[], %s::int[], %s::text[], %s::text[], %s::text[], %s::bool[],
                        %s::float8[], %s::bigint[])
                AS m(id, before, after, writer, actor, reason, releases, exit_code, code,
                     message, hint, retryable, ran, told_rev)
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
            by_actor = '', by_reason = m.reason
        FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::bigint[], %s::text[])
            AS m(id, before, after, order_rev, reason)
        WHERE e.id = m.id AND e.desired = m.before
        """,
        [
            str(Writer.STATE_UPDATER),
            [w.execution for w in wishes],
            [str(w.before) for w in wishes],
            [str(w.after) for w in wishes],
            [w.order_rev for w in wishes],
            [w.reason for w in wishes],
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


def execution_id(text: str) -> UUID | None:
    """The id that a node writes as *text*, or None when it is none of ours."""
    try:
        return UUID(text)
    except ValueError:
        return None


def release(freed: Mapping[UUID, Resources]) -> None:
    """Give resources back to nodes that the caller has locked.

    A node that has shrunk below what was allocated on it keeps no more than it advertises.
    """
    if freed:
        _execute(_RELEASE, [list(freed), *_columns(freed.values())])


def reserve(taken: Mapping[UUID, Resources], order_revs: Mapping[UUID, int]) -> None:
    """Allocate resources of locked nodes, and set their newest order revision.

    Raises IntegrityError when a node would be overcommitted: check first, this is the belt.
    """
    if order_revs:
        need = [taken.get(node, Resources()) for node in order_revs]
        _execute(_RESERVE, [list(order_revs), list(order_revs.values()), *_columns(need)])


_RELEASE = """
    UPDATE nodes_node n SET
        allocated_cpu = n.allocated_cpu - f.cpu,
        allocated_memory = n.allocated_memory - f.memory,
        allocated_disk = n.allocated_disk - f.disk,
        allocated_gpu = n.allocated_gpu - f.gpu,
        capacity_cpu = greatest(n.advertised_cpu, n.allocated_cpu - f.cpu),
        capacity_memory = greatest(n.advertised_memory, n.allocated_memory - f.memory),
        capacity_disk = greatest(n.advertised_disk, n.allocated_disk - f.disk),
        capacity_gpu = greatest(n.advertised_gpu, n.allocated_gpu - f.gpu)
    FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
        AS f(id, cpu, memory, disk, gpu)
    WHERE n.id = f.id
"""

_RESERVE = """
    UPDATE nodes_node n SET
        order_rev = f.order_rev,
        allocated_cpu = n.allocated_cpu + f.cpu,
        allocated_memory = n.allocated_memory + f.memory,
        allocated_disk = n.allocated_disk + f.disk,
        allocated_gpu = n.allocated_gpu + f.gpu
    FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
        AS f(id, order_rev, cpu, memory, disk, gpu)
    WHERE n.id = f.id
"""


def _columns(amounts: Iterable[Resources]) -> list[list[int]]:
    rows = [amount.astuple() for amount in amounts]
    return [list(column) for column in zip(*rows, strict=True)]


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
