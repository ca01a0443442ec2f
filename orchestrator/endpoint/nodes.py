"""The verbs of nodes: approve, reject, drain, release from quarantine, remove."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from django.db import transaction

from nodes import membership
from nodes.locks import Lock, lock_rows
from nodes.models import Node
from nodes.protocol.lifecycle import Connection
from orchestrator import broker
from orchestrator.explain.errors import NodeInUse
from orchestrator.explain.formatting import person
from orchestrator.lifecycle import OBSERVED, StopCause, Trigger
from orchestrator.models import Execution, journal
from orchestrator.planners.transitions import Changes, lock_executions, lock_nodes

from .lost_nodes import lock_whole_node, lose_locked, reserved_on

MOST_NAMED = 5
"""Executions that a refusal names; of the others it says how many."""


def approve_node(node_id: UUID, *, actor: str, labels: Mapping[str, str] | None = None) -> Node:
    """Let the node take part, with *labels*; jobs that wait for capacity are looked at again."""
    with transaction.atomic():
        node = membership.approve(node_id, actor=actor, labels=labels)
        node = _changed(node, "approve", f"{person(actor)} approves", actor)
        return _labelled(node, labels, actor) if labels else node


def reject_node(node_id: UUID, *, actor: str) -> Node:
    """Give the node no work and no secrets; what runs on it is lost."""
    with transaction.atomic():
        lock_rows(Lock.SESSIONS, [node_id], "epoch")  # Ended below; its lock comes first.
        held = lock_whole_node(node_id)
        lose_locked(held, StopCause.NODE_REJECTED, actor, actor=actor, for_good=True)
        node = membership.reject(node_id, actor=actor)
        sentence = f"{person(actor)} rejects"
        return _changed(node, "reject", sentence, actor, is_freed=bool(held))


def label_node(node_id: UUID, labels: Mapping[str, str | None], *, actor: str) -> Node:
    """Give the node these labels beside those that it has; takes away those that are None.

    What runs there goes on, whether or not it would still be placed there.
    """
    with transaction.atomic():
        lock_rows(Lock.NODES, [node_id], "id")  # Else two that say the same both change it.
        before = Node.objects.filter(pk=node_id).values_list("labels", flat=True).first()
        node = membership.set_labels(node_id, labels, actor=actor)
        return node if node.labels == before else _labelled(node, labels, actor)


def set_eligible(node_id: UUID, eligible: bool, *, actor: str, reason: str = "") -> Node:
    """Whether the node may get new work; what it has goes on."""
    verb = "makes eligible" if eligible else "makes ineligible"
    said = f" ({reason})" if reason else ""
    with transaction.atomic():
        node = membership.set_eligible(node_id, eligible, actor=actor)
        return _changed(node, "eligible", f"{person(actor)} {verb}{said}", actor)


def set_draining(node_id: UUID, draining: bool, *, actor: str) -> Node:
    """Whether the node is being emptied: it gets no new work; batch work on it may finish."""
    verb = "drains" if draining else "ends the drain of"
    with transaction.atomic():
        node = membership.set_draining(node_id, draining, actor=actor)
        return _changed(node, "drain", f"{person(actor)} {verb}", actor)


def release_node(node_id: UUID, *, actor: str) -> Node:
    """End the quarantine of a node that two agents seemed to be; it may connect again.

    Releasing one that is not quarantined changes nothing.
    """
    with transaction.atomic():
        lock_rows(Lock.SESSIONS, [node_id], "epoch")  # Changed below; its lock comes first.
        before = lock_rows(Lock.NODES, [node_id], "quarantined")
        node = membership.release(node_id, actor=actor)
        if before == [("",)]:
            return node
        sentence = f"{person(actor)} ends the quarantine of"
        return _changed(node, "release", sentence, actor)


def remove_node(node_id: UUID, *, actor: str) -> Node:
    """Let the node be no more: its agent is turned away and its name is free; its history stays.

    Raises NodeInUse while executions are live or reserved there.  What a lost node still
    reserves is given up with it: nobody else would ever do it for a machine that is gone.
    Removing it again changes nothing.
    """
    with transaction.atomic():
        lock_rows(Lock.SESSIONS, [node_id], "epoch")  # Ended below; its lock comes first.
        locked = lock_executions(reserved_on(node_id))
        lock_nodes([node_id])
        node = Node.every.get(pk=node_id)
        if node.removed_at is not None:
            return node
        is_lost = node.connection == Connection.LOST
        dead = [it for it in locked.values() if is_lost and it.observed in OBSERVED.terminal]
        # Asked again: until the node was locked, plans could place there.
        holding = sorted(set(reserved_on(node_id)) - {it.id for it in dead})
        if holding:
            raise NodeInUse(name=node.name, what=_named(holding))
        changes = Changes()
        for execution in dead:
            changes.give_up(execution, Trigger.NODE_LOST)
        changes.write()
        node = membership.remove(node_id, actor=actor)
        sentence = f"{person(actor)} removes {node.name}"
        journal.record([journal.fact("node", "remove", sentence, actor=actor, node=node_id)])
        return node


def _labelled(node: Node, labels: Mapping[str, str | None], actor: str) -> Node:
    said = ", ".join(
        f"no {key}" if value is None else f"{key}={value}" for key, value in sorted(labels.items())
    )
    return _changed(node, "label", f"{person(actor)} labels", actor, more=f": {said[:500]}")


def _changed(
    node: Node, what: str, sentence: str, actor: str, *, more: str = "", is_freed: bool = False
) -> Node:
    """Record it, and wake what waits for the node, unless what *is_freed* there has done so."""
    said = f"{sentence} {node.name}{more}"
    journal.record([journal.fact("node", what, said, actor=actor, node=node.pk)])
    if not is_freed:
        broker.capacity_freed([node.pk])
    return node


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
