"""Executions and nodes as sentences.  They are made when somebody asks, and never stored."""

from __future__ import annotations

from nodes import readiness
from nodes.models import Node
from orchestrator.lifecycle import MEANING, Observed
from orchestrator.models import Execution

#: What their messages say is what happened, and not only why.
_SAID_BY_MESSAGE = {Observed.CANCELLED, Observed.LOST}


def execution(row: Execution) -> str:
    """What is known of it, and why it ended if it did."""
    meaning = MEANING[Observed(row.observed)]
    if row.observed == Observed.COMPLETED or not row.message:
        return meaning
    return row.message if row.observed in _SAID_BY_MESSAGE else f"{meaning}: {row.message}"


def node(row: Node) -> str:
    """The first thing that keeps it from work, or that nothing does."""
    columns = readiness.columns(row)
    why = readiness.why(columns)
    if why is None:
        return "takes work"
    said = why.sentence(columns)
    if why.code == "quarantined":
        said += f": {row.quarantined}; stop one of the two agents, then"
        said += f" `muster node release {row.name}`"
    return said
