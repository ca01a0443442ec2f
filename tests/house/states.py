"""The page of the manual that draws every lifecycle: ``python -m tests.house.states``."""

from __future__ import annotations

from pathlib import Path

from nodes.protocol.lifecycle import APPROVAL, CONNECTION, Lifecycle
from nodes.protocol.messages import UNKNOWN_OUTCOME
from orchestrator.explain.stop_causes import WORDS
from orchestrator.lifecycle import (
    AFTER_APPROVAL,
    DESIRED,
    JOB,
    MEANING,
    OBSERVED,
    WRITERS,
    Observed,
    is_interruption,
)

PAGE = Path(__file__).parents[2] / "docs" / "states.md"

_SECTIONS = (
    (
        "Execution, desired",
        "What the scheduler wants of an execution. Never backwards; a terminal observation closes "
        "this lane in the same write.",
        DESIRED,
    ),
    ("Execution, observed", "What is known of an execution.", OBSERVED),
    ("Job", "An ended job comes back to *pending* when somebody wants something again.", JOB),
    ("Node, approval", "Whether an operator lets a node take part.", APPROVAL),
    ("Node, connection", "Whether a node is heard of.", CONNECTION),
)


def page() -> str:
    """The whole page, from the tables that the code runs on."""
    parts = [
        "# States",
        "Made from the tables in `orchestrator/lifecycle.py` and `nodes/protocol/lifecycle.py` by "
        "`python -m tests.house.states`; a test keeps it true. A trigger in the database refuses "
        "every move that is not drawn here.",
    ]
    for title, sentence, table in _SECTIONS:
        parts += [f"## {title}", sentence, _diagram(table)]
        if table is OBSERVED:
            parts += [_meanings(), _writers(), _approval(), _stop_causes()]
    return "\n\n".join(parts) + "\n"


def _diagram(table: Lifecycle) -> str:
    return f"```mermaid\n{table.mermaid()}\n```"


def _meanings() -> str:
    rows = [f"| `{state}` | {meaning} |" for state, meaning in MEANING.items()]
    return "\n".join(["| state | meaning |", "|---|---|", *rows])


def _writers() -> str:
    rows = [
        f"| {event} | {', '.join(sorted(writers))} |"
        for event, writers in WRITERS.items()
        if OBSERVED.sources(event) or DESIRED.sources(event)
    ]
    return "\n".join(["| event | who may write it |", "|---|---|", *rows])


def _approval() -> str:
    events = ", ".join(f"*{event}*" for event in sorted(AFTER_APPROVAL))
    return (
        f"Only after an approval, when *desired* is no longer *pending*: {events}. A node that "
        "goes on without one is told to stop, and the execution ends as `ask_for_bid_rejected`."
    )


def _stop_causes() -> str:
    rows = [f"| `{cause}` | {words} |" for cause, words in WORDS.items()]
    table = "\n".join(["| cause | why |", "|---|---|", *rows])
    cut = ", ".join(f"`{cause}`" for cause in WORDS if is_interruption(Observed.LOST, cause, ""))
    return "\n\n".join(
        [
            "## Why an execution was stopped",
            "What did not end by itself has a `stop_cause`, the first that somebody gave.",
            table,
            f"An execution that is *lost* by {cut} was interrupted, and so was one that has "
            f"*failed* with the code `{UNKNOWN_OUTCOME}` without a cause: "
            "[what becomes of it](job-files.md#slots-and-attempts).",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page())
