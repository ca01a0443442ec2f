"""The evaluation queue, and one evaluation."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

from dashboard.presenters import executions, explain, queue
from dashboard.queries import queue as find
from dashboard.queries.executions import placed_by
from dashboard.queries.paging import Part
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
            "rows": rows.each(lambda row: queue.row(*row)),
        }

    def workers(self) -> Part[queue.Worker]:
        return find.workers(self.now).each(lambda found: queue.worker(found, self.now))

    def evaluations(self) -> Part[queue.Line]:
        found = find.evaluations(self.sight)
        return found.each(lambda it: queue.line(it, job_name=it.job.name))


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

    @property
    def all_evaluations(self) -> str:
        return f"/api/v1/jobs/{self.evaluation.job_id}/evaluations"

    def record(self) -> dict[str, Any]:
        look = self.evaluation
        return {
            "line": queue.line(look, job_name=look.job.name),
            "explanation": explain.of_record(look.record) if look.record else None,
            "look": look,
        }

    def executions(self) -> dict[str, Any]:
        found = placed_by(self.evaluation)
        return {"lines": executions.lines(found, self.now), "more": found.more}

    def others(self) -> Part[queue.Line]:
        return find.neighbours(self.evaluation).each(queue.line)
