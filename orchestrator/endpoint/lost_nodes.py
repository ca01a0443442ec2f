"""Nodes that say nothing, or that they can start nothing: what they hold, and may be given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from django.db import connection, transaction
from django.db.models import QuerySet

from nodes import membership
from nodes.hints import Hint, after_commit
from nodes.models import Node
from nodes.protocol.lifecycle import Connection
from orchestrator import broker
from orchestrator.lifecycle import OBSERVED, Desired, StopCause, Trigger
from orchestrator.models import Execution, journal
from orchestrator.planners.transitions import (
    Changes,
    LockedExecution,
    lock_executions,
    lock_nodes,
)

from . import node_journal


def lose_silent() -> int:
    """Write that what is live on lost nodes is lost; how many.

    The rows are asked, so whoever marked a node as lost may have died right after.
    """
    lost = Node.objects.filter(connection=Connection.LOST)
    with connection.cursor() as cursor:
        cursor.execute(_LOST, [Connection.LOST.value, [str(it) for it in OBSERVED.live]])
        given_up = {node for (node,) in cursor.fetchall()}
    if not given_up:
        return 0
    with transaction.atomic():
        locked = lock_executions(live_on(given_up))
        # Asked again: a node may have said hello while this waited for the locks.
        silent = set(lost.filter(pk__in=given_up).values_list("pk", flat=True))
        mine = [execution for execution in locked.values() if execution.node in silent]
        return lose_locked(mine, StopCause.NODE_LOST, actor="housekeeping")


# Asked every second, and history is long: what lives is looked up one by one, by id.
_LOST = """
    SELECT DISTINCT l.node_id
    FROM nodes_node n JOIN orchestrator_liveexecution l ON l.node_id = n.id
    WHERE n.connection = %s AND (
        SELECT e.reserved AND e.observed = ANY (%s)
        FROM orchestrator_execution e WHERE e.id = l.execution_id)
"""


def lose_locked(
    locked: Iterable[LockedExecution],
    cause: StopCause,
    detail: str = "",
    *,
    actor: str,
    for_good: bool = False,
) -> int:
    """Write that those of these executions, which the caller has locked, that live are lost.

    What may still run keeps its reservation until its node says that it is gone; of a node that
    is away *for_good* nothing does.  What was only asked for a bid runs nowhere.
    """
    lost: list[LockedExecution] = []
    over: list[LockedExecution] = []
    for execution in locked:
        (lost if execution.observed in OBSERVED.live else over).append(execution)
    changes = Changes()
    for execution in lost:
        releases = for_good or execution.desired is Desired.PENDING
        changes.lose(execution, cause, detail, actor=actor, releases=releases)
    if for_good:
        for execution in over:
            changes.give_up(execution, Trigger.NODE_LOST)
    changes.write()
    return len(lost)


def lock_whole_node(node: UUID) -> list[LockedExecution]:
    """Lock what *node* has room for, then *node*: nothing comes to it until the transaction ends.

    A plan may have put something there between the two; then both are tried again.
    """
    while True:
        savepoint = transaction.savepoint()
        locked = lock_executions(reserved_on(node))
        lock_nodes([node])
        if set(reserved_on(node)) <= locked.keys():
            transaction.savepoint_commit(savepoint)
            return list(locked.values())
        transaction.savepoint_rollback(savepoint)


def live_on(nodes: Iterable[UUID]) -> set[UUID]:
    """The executions on these nodes that are not over."""
    return set(_live().filter(live__node__in=list(nodes)).values_list("pk", flat=True))


def reserved_on(node: UUID) -> list[UUID]:
    """The executions that *node* has room for, whether they are over or not."""
    rows = Execution.objects.filter(live__node=node, reserved=True)
    return list(rows.order_by("pk").values_list("pk", flat=True))


def _live() -> QuerySet[Execution]:
    return Execution.objects.filter(reserved=True, observed__in=OBSERVED.live)


def reconnect(sessions: Mapping[UUID, int], /) -> None:
    """These sessions, by node, are heard of again after a silence: what waits may go there."""
    with transaction.atomic():
        back = membership.reconnect(sessions)
        node_journal.record(
            journal.fact("node", "connected", f"{node.name} is heard of again", node=node.pk)
            for node in back
        )
        broker.capacity_freed(node.pk for node in back)
        after_commit(Hint.VIEW)


def degraded(said: Mapping[UUID, tuple[int, str]], /) -> None:
    """These sessions say why their nodes take no new work, or that they take it again."""
    with transaction.atomic():
        changed = membership.set_degraded(said)
        node_journal.record(
            journal.fact("node", "degraded", membership.degraded_sentence(node), node=node.pk)
            for node in changed
        )
        broker.capacity_freed(node.pk for node in changed if not node.degraded)
        after_commit(Hint.VIEW)
