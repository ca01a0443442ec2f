"""What a job remembers of nodes where it failed, or that would not take it.

The newest few, for an hour: what a job keeps is bounded, however many nodes there are.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sized
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

#: A node that would not take a job is not asked again for this long; twice as long each time.
AVOID = timedelta(seconds=30)
AVOID_AT_MOST = timedelta(minutes=5)
#: Nodes that are remembered, and for how long after they were last bad.
MOST = 64
REMEMBERED = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class BadNode:
    """``at`` is when it was last bad, ``until`` when it is asked again if it has refused.

    It has ``failed`` and ``refused`` so often.
    """

    at: datetime
    failed: int = 0
    refused: int = 0
    until: datetime | None = None


BadNodes = Mapping[str, BadNode]


def with_failure(nodes: BadNodes, node: str, at: datetime) -> dict[str, BadNode]:
    """*nodes* after an execution on *node* has failed *at* that time."""
    before = nodes.get(node, BadNode(at))
    return {**nodes, node: replace(before, at=max(at, before.at), failed=before.failed + 1)}


def with_refusal(nodes: BadNodes, node: str, at: datetime) -> dict[str, BadNode]:
    """*nodes* after *node* has refused the job *at* that time."""
    before = nodes.get(node, BadNode(at))
    pause = min(AVOID * 2.0 ** min(before.refused, 10), AVOID_AT_MOST)
    until = at + pause if before.until is None else max(at + pause, before.until)
    now = replace(before, at=max(at, before.at), refused=before.refused + 1, until=until)
    return {**nodes, node: now}


def remembered(nodes: BadNodes, now: datetime) -> dict[str, BadNode]:
    """Those of *nodes* that are still remembered at *now*; first of all those not asked yet."""
    lately = [
        (max(it.at, it.until or it.at), node)
        for node, it in nodes.items()
        if it.at > now - REMEMBERED
    ]
    return {node: nodes[node] for _, node in sorted(lately)[-MOST:]}


def has_many(nodes: Sized) -> bool:
    """Whether these are as many as can be remembered."""
    return len(nodes) >= MOST


def avoided(
    nodes: BadNodes, now: datetime, known: Container[str] | None = None
) -> dict[str, datetime]:
    """The nodes that are not asked at *now*, and until when; of the *known* ones, if it says so."""
    refusing = {n: it.until for n, it in nodes.items() if it.until is not None and it.until > now}
    return {n: until for n, until in refusing.items() if known is None or n in known}


def has_refusing(nodes: BadNodes, now: datetime, known: Container[str]) -> bool:
    """Whether as many of the *known* nodes as are remembered have refused of late."""
    return has_many(avoided(nodes, now - AVOID_AT_MOST, known))
