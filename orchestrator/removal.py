"""A node is removed: only when it holds nothing, and nothing can be placed on it meanwhile."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from nodes import membership
from nodes.locks import Lock, lock_rows
from nodes.models import Node
from nodes.protocol.lifecycle import Connection
from nodes.protocol.resources import Resources

from . import broker, journal
from .errors import NodeInUse
from .lifecycle import OBSERVED, Trigger
from .models import Execution
from .transitions import give_up, lock_executions, lock_nodes, release

MOST_NAMED = 5
"""Executions that a refusal names; of the others it says how many."""


def remove_node(node_id: UUID, *, actor: str) -> Node:
    """Let the node be no more: its agent is turned away and its name is free; its history stays.

    Raises NodeInUse while executions are live or reserved there.  What a lost node still
    reserves is given up with it: nobody else would ever do it for a machine that is gone.
    Removing it again changes nothing.
    """
    with transaction.atomic():
        lock_rows(Lock.SESSIONS, [node_id], "epoch")  # Ended below; its lock comes first.
        locked = lock_executions(_reserved(node_id))
        lock_nodes([node_id])
        node = Node.every.get(pk=node_id)
        if node.removed_at is not None:
            return node
        dead = {
            key
            for key, it in locked.items()
            if it.reserved
            and it.observed in OBSERVED.terminal
            and node.connection == Connection.LOST
        }
        # Asked again: until the node was locked, plans could place there.
        holding = [key for key in _reserved(node_id) if key not in dead]
        if holding:
            raise NodeInUse(name=node.name, what=_named(holding))
        give_up(sorted(dead))
        # Their jobs may have waited for the node to come back.
        broker.enqueue({locked[key].job for key in dead}, Trigger.NODE_LOST)
        release({node_id: sum((locked[key].resources for key in dead), Resources())})
        node = membership.remove(node_id, actor=actor)
        sentence = f"{journal.who(actor)} removes {node.name}"
        journal.record([journal.fact("node", "remove", sentence, actor=actor, node=node_id)])
        return node


def _reserved(node_id: UUID) -> list[UUID]:
    rows = Execution.objects.filter(node_id=node_id, reserved=True)
    return list(rows.order_by("pk").values_list("pk", flat=True))


def _named(executions: list[UUID]) -> str:
    """``3 executions: a slot 0 (running), …``."""
    rows = Execution.objects.filter(pk__in=executions).select_related("job")
    named = [
        f"{it.job.name} slot {it.slot} ({it.observed})"
        for it in rows.order_by("job__name", "slot")[:MOST_NAMED]
    ]
    rest = len(executions) - len(named)
    number = "1 execution" if len(executions) == 1 else f"{len(executions)} executions"
    return f"{number}: {', '.join(named)}" + (f", and {rest} more" if rest else "")
