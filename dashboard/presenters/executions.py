"""Executions in rows, one execution's head, its intervals and its transitions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from nodes.protocol.resources import DIMENSIONS
from orchestrator.explain.formatting import (
    amounts,
    capitalised,
    counted,
    duration,
    full_stop,
    person,
)
from orchestrator.explain.wording import Sentence
from orchestrator.lifecycle import OBSERVED

from . import states
from .lifeline import NAMES, letter
from .states import Shown

if TYPE_CHECKING:
    from orchestrator.models import Execution, ExecutionHistory, ExecutionOutput

SHOWN_OUTPUT = 64 * 1024

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[()][0-9A-Za-z]|[@-Z\\-_])"
)
"""Colours and other orders to a terminal: a page is none."""


@dataclass(frozen=True, slots=True)
class ExecutionLine:
    """An execution as lists show it; ``width`` is its run time on the list's common scale."""

    id: str
    short: str
    job: str
    job_name: str
    node: str
    node_name: str
    slot: int
    attempt: int
    version: int
    shown: Shown
    desired: Shown
    observed: Shown
    differs: bool
    created: datetime
    started: datetime | None
    ended: datetime | None
    took: str
    width: float
    exit: str
    reason: str


@dataclass(frozen=True, slots=True)
class Head:
    line: ExecutionLine
    sentence: Sentence
    hint: str
    live: bool
    figures: tuple[tuple[str, str], ...]
    attempts: tuple[tuple[str, str, Shown, bool], ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """What one part of its life took; ``width`` is its share of the whole."""

    text: str
    took: str
    width: float
    look: str
    mean: str


@dataclass(frozen=True, slots=True)
class Transition:
    at: datetime
    clock: str
    delta: str
    lane: str
    before: str
    after: Shown
    letter: str
    writer: str
    actor: str
    reason: str
    rev: int


@dataclass(frozen=True, slots=True)
class Output:
    name: str
    text: str
    note: str


def lines(executions: Sequence[Execution], now: datetime) -> list[ExecutionLine]:
    """Executions for a list, their run times on one scale."""
    longest = max((_ran(execution, now) for execution in executions), default=0.0)
    return [_line(execution, now, longest) for execution in executions]


def head(
    execution: Execution,
    attempts: Sequence[Execution],
    now: datetime,
    silent_since: datetime | None = None,
) -> Head:
    """What stands above everything else on an execution's page.

    *silent_since* is when its node was last heard of, if that is too long ago.
    """
    line = _line(execution, now, 0.0)
    needs = {name: getattr(execution, name) for name in DIMENSIONS}
    figures = [
        ("slot", str(execution.slot)),
        ("attempt", str(execution.attempt)),
        ("version", str(execution.version)),
        ("holds" if execution.reserved else "held", amounts(needs)),
        ("revision", str(execution.rev)),
    ]
    if execution.exit_code is not None:
        figures.insert(3, ("exit code", str(execution.exit_code)))
    if execution.stop_cause:
        figures.append(("stop cause", execution.stop_cause))
    ladder = tuple(
        (
            str(one.pk),
            str(one.attempt),
            states.execution(one.desired, one.observed),
            one == execution,
        )
        for one in attempts
    )
    return Head(
        line=line,
        sentence=_sentence(execution, line, silent_since),
        hint=execution.hint,
        live=execution.observed not in OBSERVED.terminal,
        figures=tuple(figures),
        attempts=ladder,
    )


def intervals(
    execution: Execution, rows: Sequence[ExecutionHistory], since: datetime | None, now: datetime
) -> list[Interval]:
    """Where the time went, from submission (when *since* is known) to the end."""
    seen = {row.after: row.at for row in reversed(rows) if row.lane == "observed"}
    stop = next((row.at for row in rows if row.lane == "desired" and row.after == "stopped"), None)
    end = execution.ended_at
    asked = seen.get("ask_for_bid")
    bid, accepted = seen.get("ask_for_bid_accepted"), seen.get("bid_accepted")
    running = seen.get("running")
    parts = (
        ("Waiting for a decision", since, seen.get("new"), "waiting", "submitted to placed"),
        ("Telling the node", seen.get("new"), asked or accepted, "starting", "placed to delivered"),
        ("Bidding", asked, bid, "starting", "asked to answered"),
        ("Approval", bid, accepted, "starting", "bid to told to run"),
        ("Preparing", accepted, running, "starting", "told to run to running"),
        ("Running", running, end or now, "running", "the task itself"),
        ("Stopping", stop if stop != end else None, end, "stopped", "told to stop to stopped"),
    )
    known = [
        (text, (until - begun).total_seconds(), look, mean)
        for text, begun, until, look, mean in parts
        if begun is not None and until is not None and until >= begun
    ]
    longest = max((took for _, took, _, _ in known), default=0.0) or 1.0
    return [
        Interval(text, duration(took), round(max(0.5, 100 * took / longest), 2), look, mean)
        for text, took, look, mean in known
    ]


def transitions(rows: Sequence[ExecutionHistory]) -> list[Transition]:
    """Every change of both lanes, with the time since the one before."""
    found = []
    before: datetime | None = None
    for row in sorted(rows, key=lambda row: (row.at, row.rev)):
        shown = (states.desired if row.lane == "desired" else states.observed)(row.after)
        sign = letter(row)
        found.append(
            Transition(
                at=row.at,
                clock=f"{row.at:%H:%M:%S}.{row.at.microsecond // 1000:03d}",
                delta="" if before is None else f"+{duration((row.at - before).total_seconds())}",
                lane=row.lane,
                before=row.before,
                after=Shown(shown.look, row.after, shown.mean),
                letter=sign,
                writer=NAMES.get(sign, row.writer),
                actor=person(row.actor),
                reason=row.why,
                rev=row.rev,
            )
        )
        before = row.at
    return found


def outputs(output: ExecutionOutput | None) -> list[Output]:
    """The tails that came with the final report, the empty ones left out."""
    if output is None:
        return []
    both = (
        ("stdout", output.stdout, output.stdout_size),
        ("stderr", output.stderr, output.stderr_size),
    )
    return [
        Output(name, _ESCAPES.sub("", text)[-SHOWN_OUTPUT:], _how_much(text, size))
        for name, text, size in both
        if size
    ]


def _how_much(text: str, size: int) -> str:
    kept = len(text.encode())
    if not kept:
        return f"none of {counted(size, 'byte')} was kept"
    return (
        f"the last {kept:,} of {size:,} bytes"
        if size > kept
        else f"all of it, {counted(size, 'byte')}"
    )


def _line(execution: Execution, now: datetime, longest: float) -> ExecutionLine:
    ran = _ran(execution, now)
    shown = states.execution(execution.desired, execution.observed)
    return ExecutionLine(
        id=str(execution.pk),
        short=str(execution.pk)[:8],
        job=str(execution.job_id),
        job_name=execution.job.name,
        node=str(execution.node_id),
        node_name=execution.node.name,
        slot=execution.slot,
        attempt=execution.attempt,
        version=execution.version,
        shown=shown,
        desired=states.desired(execution.desired),
        observed=states.observed(execution.observed),
        differs=shown.word == "stopping",
        created=execution.created_at,
        started=execution.started_at,
        ended=execution.ended_at,
        took=duration(ran) if execution.started_at and execution.ended_at else "",
        width=round(100 * ran / longest, 2) if longest and execution.started_at else 0.0,
        exit="" if execution.exit_code is None else str(execution.exit_code),
        reason=execution.message or execution.code,
    )


def _ran(execution: Execution, now: datetime) -> float:
    if execution.started_at is None:
        return 0.0
    return max(0.0, ((execution.ended_at or now) - execution.started_at).total_seconds())


def _sentence(execution: Execution, line: ExecutionLine, silent: datetime | None) -> Sentence:
    word = capitalised(line.shown.word)
    if execution.observed not in OBSERVED.terminal:
        known = f"{word} on {line.node_name}: {line.shown.mean}."
        if silent is None:
            return (known,)
        return (f"{known} So it was when {line.node_name} was last heard of, ", silent, ".")
    lasted = f" after {line.took}" if line.took else ""
    if execution.observed == "failed" and execution.exit_code is not None:
        lasted += f" with exit code {execution.exit_code}"
    said = f": {execution.message}" if execution.message else ""
    final = execution.observed == "failed" and not execution.retryable
    again = " It will not be retried." if final else ""
    return (full_stop(f"{word} on {line.node_name}{lasted}{said}") + again,)
