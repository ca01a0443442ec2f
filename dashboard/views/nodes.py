"""Nodes: the list and one of them."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from dashboard.presenters import executions, nodes
from dashboard.queries import nodes as find
from dashboard.rendering import Page
from nodes.models import Node
from orchestrator import endpoint
from orchestrator.explain.formatting import counted
from orchestrator.models import Execution

LARGEST = 10
"""Executions that a node's page names as those that hold most of it."""


class Nodes(Page):
    folder = "nodes"
    section = "nodes"
    regions = ("table",)
    words = ("text", "after")

    @cached_property
    def text(self) -> str:
        return self.request.GET.get("text", "").strip()[:63]

    def table(self) -> dict[str, Any]:
        found, after = find.page(self.text, self.request.GET.get("after", ""))
        running = endpoint.running_on(found)
        lines = [nodes.line(node, running.get(node.pk, 0)) for node in found]
        return {
            "lines": lines,
            "pending": [line for line in lines if line.pending],
            "older": urlencode({"text": self.text, "after": after}) if after else "",
            "filtered": bool(self.text),
        }


class NodePage(Page):
    folder = "node"
    section = "nodes"
    regions = ("header", "capacity", "facts", "executions", "events")
    words = ("before",)

    @cached_property
    def node(self) -> Node:
        return self.named(find.one)

    @cached_property
    def held(self) -> list[Execution]:
        return find.held(self.node, LARGEST)

    @cached_property
    def holds(self) -> int:
        return find.holds(self.node)

    @cached_property
    def summary(self) -> nodes.NodeHead:
        running = endpoint.running_on([self.node]).get(self.node.pk, 0)
        return nodes.head(self.node, self.holds, running)

    @property
    def title(self) -> str:
        return self.node.name

    @property
    def all_events(self) -> str:
        return f"{reverse('admin:orchestrator_event_changelist')}?node_id={self.node.pk}"

    def header(self) -> nodes.NodeHead:
        return self.summary

    def capacity(self) -> dict[str, Any]:
        rest = self.holds - len(self.held)
        return {
            "bars": nodes.capacities(self.node),
            "holders": nodes.holders(self.node, self.held),
            "more": f"and {counted(rest, 'smaller one')}, listed below with all others"
            if rest > 0
            else "",
        }

    def facts(self) -> dict[str, Any]:
        session = getattr(self.node, "session", None)
        return {"head": self.summary, "node": self.node, "session": session}

    def executions(self) -> dict[str, Any]:
        page = find.executions(self.node, self.request.GET.get("before", ""))
        return {"lines": executions.lines(page.rows, self.now), **page.links()}

    def events(self) -> Any:
        return find.events(self.node)
