"""The eight states that people see, and how every raw state is shown.

Colour, glyph and word always come together: a state is never told by colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nodes import readiness
from orchestrator.lifecycle import MEANING, Observed

#: In the order in which they are drawn in bars and named in legends.
ORDER = ("ok", "running", "starting", "waiting", "blocked", "failed", "lost", "stopped")

#: The state that stands for a group: the first of these that occurs in it.
URGENCY = ("failed", "lost", "blocked", "starting", "running", "waiting", "stopped", "ok")


@dataclass(frozen=True, slots=True)
class Shown:
    """One of the eight *look*s, the *word* for it here, and what it *mean*s in a sentence."""

    look: str
    word: str
    mean: str = ""


_OBSERVED: Mapping[str, tuple[str, str]] = {
    "new": ("waiting", "new"),
    "ask_for_bid": ("starting", "asked for bid"),
    "ask_for_bid_accepted": ("starting", "bid received"),
    "ask_for_bid_rejected": ("stopped", "node declined"),
    "bid_accepted": ("starting", "bid accepted"),
    "bid_rejected": ("stopped", "bid not needed"),
    "preparing": ("starting", "preparing"),
    "running": ("running", "running"),
    "publishing": ("starting", "publishing"),
    "completed": ("ok", "completed"),
    "failed": ("failed", "failed"),
    "cancelled": ("stopped", "cancelled"),
    "lost": ("lost", "lost"),
}

OBSERVED_STATES = frozenset(_OBSERVED)

_DESIRED: Mapping[str, tuple[str, str]] = {
    "pending": ("waiting", "pending"),
    "running": ("running", "running"),
    "stopped": ("stopped", "stopped"),
}

_JOB: Mapping[str, tuple[str, str]] = {
    "pending": ("waiting", "pending"),
    "queued": ("waiting", "queued"),
    "running": ("running", "running"),
    "completed": ("ok", "completed"),
    "failed": ("failed", "failed"),
    "stopped": ("stopped", "stopped"),
}

_EVALUATION: Mapping[str, tuple[str, str]] = {
    "complete": ("ok", "complete"),
    "failed": ("failed", "failed"),
    "cancelled": ("stopped", "superseded"),
}


def observed(raw: str) -> Shown:
    """How an execution's observed state is shown."""
    look, word = _OBSERVED[raw]
    return Shown(look, word, MEANING[Observed(raw)])


def desired(raw: str) -> Shown:
    """How an execution's desired state is shown."""
    return Shown(*_DESIRED[raw])


def execution(wanted: str, seen: str) -> Shown:
    """One state for both lanes: what is seen, unless it was told to stop and has not yet."""
    shown = observed(seen)
    if wanted == "stopped" and shown.look in {"waiting", "starting", "running"}:
        return Shown("starting", "stopping", f"told to stop; last seen {shown.word}")
    return shown


def job(raw: str, *, blocked: bool = False, impossible: bool = False) -> Shown:
    """How a job's state is shown; *blocked* when nothing it wants fits now, or ever could."""
    look, word = _JOB[raw]
    if impossible and raw in {"pending", "queued"}:
        return Shown("failed", "impossible", "no node could ever run it")
    if blocked and raw in {"pending", "queued"}:
        return Shown("blocked", "blocked", "nothing fits now")
    return Shown(look, word)


def evaluation(raw: str) -> Shown:
    """How the state of an evaluation is shown."""
    return Shown(*_EVALUATION[raw])


def node(row: object) -> Shown:
    """One state for all that is known of a node: what an operator must act on comes first."""
    columns = readiness.columns(row)
    why = readiness.why(columns)
    if why is None:
        return Shown("ok", "ready", "it takes new work")
    shown = _NODE[why.code]
    return replace(shown, mean=shown.mean.format(columns[why.column]))


_NODE = {
    "removed": Shown("stopped", "removed", "it is no node any longer; this is its history"),
    "rejected": Shown("stopped", "rejected", "an operator turned it away"),
    "quarantined": Shown(
        "failed", "quarantined", "{}; stop one of the two agents, then release the node"
    ),
    "pending": Shown("blocked", "awaits approval", "it gets no work until then"),
    "lost": Shown("lost", "lost", "silent too long; what ran there is lost"),
    "disconnected": Shown("lost", "disconnected", "not heard of lately"),
    "degraded": Shown("failed", "degraded", "it takes no new work: {}"),
    "draining": Shown(
        "blocked", "draining", "it gets no new work; what runs there goes on to its end"
    ),
    "ineligible": Shown("stopped", "ineligible", "it gets no new work"),
}
