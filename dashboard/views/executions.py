"""One execution: its two lanes, where its time went, what it printed."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from dashboard.presenters import executions, lifeline
from dashboard.queries import executions as find
from dashboard.queries.paging import Part
from dashboard.rendering import Page
from orchestrator.lifecycle import OBSERVED
from orchestrator.models import Execution, ExecutionHistory


class ExecutionPage(Page):
    folder = "execution"
    section = "jobs"
    regions = ("header", "timeline", "intervals", "transitions", "output")

    @cached_property
    def execution(self) -> Execution:
        return self.named(find.one)

    @cached_property
    def history(self) -> list[ExecutionHistory]:
        return find.history(self.execution)

    @property
    def title(self) -> str:
        return f"{self.execution.job.name} · slot {self.execution.slot}"

    @cached_property
    def attempts(self) -> Part[Execution]:
        return find.attempts(self.execution)

    def header(self) -> executions.Head:
        silent = find.silent_since(self.execution, self.now)
        return executions.head(self.execution, self.attempts, self.now, silent)

    def timeline(self) -> lifeline.Lifeline:
        return lifeline.lifeline(self.execution, self.history, self.now)

    def intervals(self) -> list[executions.Interval]:
        first = self.execution.attempt == 1 and self.execution.round == self.execution.job.round
        since = self.execution.job.round_at if first else None
        return executions.intervals(self.execution, self.history, since, self.now)

    def transitions(self) -> list[executions.Transition]:
        return executions.transitions(self.history)

    def output(self) -> dict[str, Any]:
        seen = self.execution.observed
        return {
            "tails": executions.outputs(find.output(self.execution)),
            "live": seen not in OBSERVED.terminal,
            "begun": self.execution.started_at is not None,
        }
