"""Why a node takes no new work: one table, for plans, queries, pages, API and command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from nodes.protocol.lifecycle import Approval, Connection


class Unready(NamedTuple):
    """A node takes no new work while *column* is *value*; or is not, where it *must* be.

    ``one`` and ``many`` say so of a node and of several; ``{}`` is what the column says.
    """

    code: str
    column: str
    must: bool
    value: Any
    one: str
    many: str

    def holds(self, node: Mapping[str, Any]) -> bool:
        """Whether it keeps the node with these columns from work."""
        return bool((node[self.column] == self.value) is not self.must)

    def sentence(self, node: Mapping[str, Any]) -> str:
        """What is said of the node with these columns, after its name."""
        return self.one.format(node[self.column])


#: What weighs most comes first, and is what is said.
UNREADY = (
    Unready("removed", "removed_at", True, None, "was removed", "were removed"),
    Unready("rejected", "approval", False, Approval.REJECTED, "was rejected", "were rejected"),
    Unready("quarantined", "quarantined", True, "", "is quarantined", "are quarantined"),
    Unready(
        "pending", "approval", True, Approval.APPROVED, "waits for approval", "wait for approval"
    ),
    Unready("lost", "connection", False, Connection.LOST, "is lost", "are lost"),
    Unready(
        "disconnected",
        "connection",
        True,
        Connection.CONNECTED,
        "is disconnected",
        "are disconnected",
    ),
    Unready("degraded", "degraded", True, "", "is degraded: {}", "are degraded"),
    Unready("draining", "draining", True, False, "drains", "drain"),
    Unready("ineligible", "eligible", True, True, "is not eligible", "are not eligible"),
)

#: What is said of nodes that will never take work again.
FINAL = frozenset(it.one for it in UNREADY if it.code in {"removed", "rejected"})

#: The columns that decide it, and what they are on a node that takes new work.
READY: Mapping[str, Any] = {it.column: it.value for it in UNREADY if it.must}


def columns(node: object) -> dict[str, Any]:
    """Those columns of a row."""
    return {column: getattr(node, column) for column in READY}


def why(node: Mapping[str, Any]) -> Unready | None:
    """The first thing that keeps the node with these columns from new work, or None."""
    return next((it for it in UNREADY if it.holds(node)), None)


def sentence(node: Mapping[str, Any]) -> str:
    """What `why` says of it; empty when it takes new work."""
    found = why(node)
    return found.sentence(node) if found else ""
