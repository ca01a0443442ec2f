"""What operators may do to a node.  The orchestrator wraps these, to wake the jobs concerned."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from django.db import transaction

from nodes.errors import Quarantined, UnknownNode
from nodes.locks import Lock, lock_rows
from nodes.models import Node, NodeSession
from nodes.protocol.lifecycle import APPROVAL, CONNECTION, Approval, Connection

from .joining import Clock, end_session, revoke

log = structlog.get_logger(__name__)


def approve(node_id: UUID, *, actor: str) -> Node:
    """Let the node take part.  Approving it again changes nothing.

    Raises Quarantined for one that would get no work all the same: it has to be released.
    """
    with transaction.atomic():
        node = _lock(node_id)
        if node.quarantined:
            raise Quarantined(name=node.name, why=node.quarantined)
        return _decide(node_id, "approve", actor)


def reject(node_id: UUID, *, actor: str) -> Node:
    """Give the node no work and no secrets, end its session, and let it sign in no more."""
    with transaction.atomic():
        end_session(node_id)
        return _decide(node_id, "reject", actor)


def set_eligible(node_id: UUID, eligible: bool, *, actor: str) -> Node:
    """Whether the node may get new work."""
    return _set(node_id, actor, eligible=eligible)


def set_draining(node_id: UUID, draining: bool, *, actor: str) -> Node:
    """Whether the node is being emptied."""
    return _set(node_id, actor, draining=draining)


def release(node_id: UUID, *, actor: str) -> Node:
    """End the node's quarantine: the next agent that says hello is the node.

    Releasing one that is not quarantined changes nothing.
    """
    with transaction.atomic():
        lock_rows(Lock.SESSIONS, [node_id], "epoch")
        if _lock(node_id).quarantined:
            mine = NodeSession.objects.filter(node_id=node_id)
            mine.update(ledger="", instance="", run=0)
        return _set(node_id, actor, quarantined="")


def remove(node_id: UUID, *, actor: str) -> Node:
    """Let the node be no more: its session and its credentials end, and its name is free.

    Its row stays, for what ran there.  The caller sees to it that nothing is placed on it.
    """
    with transaction.atomic():
        revoke(node_id)
        node = _lock(node_id)
        if node.connection == Connection.CONNECTED:
            node.connection = CONNECTION.after(Connection.CONNECTED, "silence").value
        node.removed_at = Clock()
        node.save(update_fields=["connection", "removed_at"])
    node = Node.every.get(pk=node_id)
    log.info("node removed", node=str(node_id), name=node.name, actor=actor)
    return node


def _decide(node_id: UUID, event: str, actor: str) -> Node:
    sources = [state.value for state in APPROVAL.sources(event)]
    target: Approval = next(to for _, name, to in APPROVAL.edges() if name == event)
    moved = Node.objects.filter(pk=node_id, approval__in=sources).update(approval=target.value)
    node = _get(node_id)
    if moved:
        log.info("node decided", node=str(node_id), approval=target, actor=actor)
    return node


def _set(node_id: UUID, actor: str, **values: Any) -> Node:
    differs = Node.objects.filter(pk=node_id).exclude(**values)
    if differs.update(**values):
        log.info("node changed", node=str(node_id), actor=actor, **values)
    return _get(node_id)


def _lock(node_id: UUID) -> Node:
    lock_rows(Lock.NODES, [node_id], "id")
    return _get(node_id)


def _get(node_id: UUID) -> Node:
    node = Node.objects.filter(pk=node_id).first()
    if node is None:
        raise UnknownNode(node=node_id)
    return node
