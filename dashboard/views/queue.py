"""The evaluation queue, and one evaluation."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

from dashboard.presenters import executions, explain, queue
from dashboard.queries import queue as find
from dashboard.queries.executions import placed_by
from dashboard.rendering import Page
from orchestrator.explain.formatting import capped, duration, listed
from orchestrator.models import Evaluation


class Queue(Page):
    folder = "queue"
    section = "queue"
    regions = ("pipeline", "state", "workers", "evaluations")
    words = ("state",)

    def mistakes(self) -> list[str]:
        found, asked = super().mistakes(), self.request.GET.get("state", "")
        if asked and not self.chosen:
            states = listed(find.STATES)
            found.append(f"The queue has no state {asked[:40]!r}: they are {states}.")
        return found

    @cached_property
    def chosen(self) -> str:
        asked = self.request.GET.get("state", "")
        return asked if asked in find.STATES else ""

    def pipeline(self) -> dict[str, Any]:
        found = find.by_state()
        flow = find.flow(self.now)
        shown = {name: queue.state_box(name, held, find.COUNTED) for name, held in found.items()}
        return {
            "states": shown,
            "line": [shown["ready"], shown["leased"]],
            "sides": [shown["waiting"], shown["blocked"], shown["dead"]],
            "arriving": shown["arriving"],
            "flow": flow,
            "minute": capped(flow.minute, find.COUNTED),
            "low": duration(flow.low) if flow.low is not None else "",
            "high": duration(flow.high) if flow.high is not None else "",
            "setting": self.setting,
        }

    def state(self) -> dict[str, Any]:
        if not self.chosen:
            return {"name": "", "rows": []}
        rows = find.rows(self.sight, self.chosen)
        return {
            "name": self.chosen,
            "state": queue.state_box(self.chosen, find.InState(len(rows)), find.LISTED + 1),
            "rows": [queue.row(row, self.chosen) for row in rows],
        }

    def workers(self) -> list[queue.Worker]:
        return [queue.worker(found, self.now) for found in find.workers(self.now)]

    def evaluations(self) -> list[queue.Line]:
        return [queue.line(look, job_name=look.job.name) for look in find.evaluations(self.sight)]


class EvaluationPage(Page):
    folder = "evaluation"
    section = "queue"
    regions = ("record", "executions", "others")

    @cached_property
    def evaluation(self) -> Evaluation:
        return self.named(partial(find.one, self.seen))

    @property
    def title(self) -> str:
        return f"Evaluation {self.evaluation.pk}"

    def record(self) -> dict[str, Any]:
        look = self.evaluation
        return {
            "line": queue.line(look, job_name=look.job.name),
            "explanation": explain.of_record(look.record) if look.record else None,
            "look": look,
        }

    def executions(self) -> dict[str, Any]:
        found, more = placed_by(self.evaluation)
        return {"lines": executions.lines(found, self.now), "more": more}

    def others(self) -> list[queue.Line]:
        return [queue.line(look) for look in find.neighbours(self.evaluation)]
