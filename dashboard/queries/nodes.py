"""Nodes and what they hold."""

from __future__ import annotations

from django.db.models import Q, QuerySet

from nodes.models import Node
from orchestrator.access.sight import Sight
from orchestrator.endpoint.finding import LIVING_FIRST, begins_with, find
from orchestrator.models import Event, Execution

from .paging import Part, Slice, newest, part

MOST = 500
"""Nodes of one page, in the order of their names."""


def page(text: str, after: str) -> tuple[list[Node], str]:
    """Nodes by name, and the name after which the next page begins.

    With *text*, those that have it in their names, or whose ids begin so.
    """
    rows: QuerySet[Node] = Node.objects.select_related("heartbeat").order_by("name")
    if text:
        begins, inside = begins_with(text), Q(name__icontains=text)
        rows = rows.filter(inside | begins if begins else inside)
    if after:
        rows = rows.filter(name__gt=after)
    found = list(rows[: MOST + 1])
    return found[:MOST], found[MOST - 1].name if len(found) > MOST else ""


def one(reference: str) -> Node:
    """The node with this id or name, a removed one when no other has it, or whose id begins so.

    Raises NotFound or Ambiguous.
    """
    rows = Node.every.select_related("heartbeat", "session").order_by(LIVING_FIRST)
    return find(rows, "node", reference, Q(name=reference))


def holds(sight: Sight, node: Node) -> int:
    """How many executions in *sight* have resources counted on *node*."""
    return sight.of(Execution.objects.filter(live__node=node, reserved=True)).count()


def executions(sight: Sight, node: Node, before: str) -> Slice[Execution]:
    rows = Execution.objects.filter(node=node).select_related("job", "node")
    return newest(sight.of(rows), before)


def held(sight: Sight, node: Node, limit: int) -> list[Execution]:
    """Executions in *sight* whose resources are counted on *node*, the largest first."""
    rows = sight.of(Execution.objects.filter(live__node=node, reserved=True).select_related("job"))
    return list(rows.order_by("-memory", "-cpu", "pk")[:limit])


def events(seen: Sight, node: Node, limit: int = 25) -> Part[Event]:
    return part(seen.of(Event.objects.filter(node_id=node.pk)).order_by("-pk"), limit)
