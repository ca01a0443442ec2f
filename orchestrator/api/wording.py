"""Executions and nodes as sentences.  They are made when somebody asks, and never stored."""

from __future__ import annotations

from nodes.models import Node
from orchestrator.lifecycle import MEANING, Observed
from orchestrator.models import Execution


def execution(row: Execution) -> str:
    """What is known of it, and why it ended if it did."""
    meaning = MEANING[Observed(row.observed)]
    if row.observed == Observed.COMPLETED or row.message in {"", meaning}:
        return meaning
    return f"{meaning}: {row.message}"


def node(row: Node) -> str:
    """The first thing that keeps it from work, or that nothing does."""
    reasons = (
        (row.removed_at is not None, "was removed"),
        (
            bool(row.quarantined),
            f"quarantined: {row.quarantined}; stop one of the two agents, then"
            f" `muster node release {row.name}`",
        ),
        (row.approval == "pending", "waits for approval"),
        (row.approval == "rejected", "was rejected"),
        (row.connection != "connected", f"is {row.connection}"),
        (bool(row.degraded), f"takes no new work: {row.degraded}"),
        (row.draining, "is being drained"),
        (not row.eligible, "takes no new work"),
    )
    return next((sentence for holds, sentence in reasons if holds), "takes work")
