"""What operators may do to a node.  The orchestrator wraps these, to wake the jobs concerned."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from django.db import transaction

from nodes.errors import UnknownNode
from nodes.models import Node, NodeSession
from nodes.protocol.lifecycle import APPROVAL, Approval

from .joining import end_session

log = structlog.get_logger(__name__)


def approve(node_id: UUID, *, actor: str) -> Node:
    """Let the node take part.  Approving it again changes nothing."""
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
    """End the node's quarantine: the next agent that says hello is the node."""
    with transaction.atomic():
        NodeSession.objects.filter(node_id=node_id).update(ledger="", instance="", run=0)
        return _set(node_id, actor, quarantined="")


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


def _get(node_id: UUID) -> Node:
    node = Node.objects.filter(pk=node_id).first()
    if node is None:
        raise UnknownNode(node=node_id)
    return node
