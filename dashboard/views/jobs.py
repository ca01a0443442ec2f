"""Jobs: the list, one job, its definition; stop and rerun."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.urls import reverse

from dashboard.presenters import executions, explain, jobs, queue, slots, specification
from dashboard.queries import jobs as find
from dashboard.queries.paging import Part
from dashboard.rendering import Page
from orchestrator import broker
from orchestrator.endpoint import silent_nodes, spec_warnings
from orchestrator.explain.formatting import listed
from orchestrator.explain.not_kept import NotKept
from orchestrator.explain.reasons import NodeSilent, Unplaced, of_job
from orchestrator.lifecycle import ENDED
from orchestrator.models import Evaluation, Job, not_kept, spec_cache


class Jobs(Page):
    folder = "jobs"
    section = "jobs"
    regions = ("table",)
    words = ("state", "text", "before")

    def mistakes(self) -> list[str]:
        found = super().mistakes()
        if self.state and self.state not in find.STATES:
            states = listed(find.STATES)
            found.append(f"No job is ever {self.state[:40]!r}: the states are {states}.")
        return found

    @cached_property
    def state(self) -> str:
        return self.request.GET.get("state", "")

    @cached_property
    def text(self) -> str:
        return self.request.GET.get("text", "").strip()[:63]

    @property
    def states(self) -> tuple[str, ...]:
        return find.STATES

    def table(self) -> dict[str, Any]:
        before = self.request.GET.get("before", "")
        page = find.page(self.sight, self.state, self.text, before)
        chosen = {k: v for k, v in (("state", self.state), ("text", self.text)) if v}
        return {
            "lines": [jobs.line(job, broker.known(job)) for job in page.rows],
            "filtered": bool(chosen),
            **page.links(**chosen, **self.kept),
        }


class OneJob(Page):
    """What the pages of one job share."""

    section = "jobs"

    @cached_property
    def job(self) -> Job:
        return self.named(lambda name: find.one(self.seen, name, self.namespace))

    @property
    def title(self) -> str:
        return self.job.name

    @cached_property
    def silent(self) -> list[NodeSilent]:
        return silent_nodes(self.job)

    @property
    def all_evaluations(self) -> str:
        return f"/api/v1/jobs/{self.job.pk}/evaluations"

    @property
    def all_events(self) -> str:
        return f"{reverse('admin:orchestrator_event_changelist')}?job_id={self.job.pk}"

    @property
    def all_versions(self) -> str:
        return f"/api/v1/jobs/{self.job.pk}/versions"

    @cached_property
    def standing(self) -> broker.Standing | None:
        return broker.known(self.job)

    def header(self) -> jobs.JobHead:
        return jobs.head(self.job, self.standing, self.silent)


class JobPage(OneJob):
    folder = "job"
    regions = ("header", "warnings", "slots", "explain", "executions", "evaluations", "events")
    words = ("before",)
    numbers = ("slot",)

    @cached_property
    def not_kept(self) -> NotKept:
        return not_kept.of_job(self.job, self.now)

    @cached_property
    def looks(self) -> Part[Evaluation]:
        return find.evaluations(self.job)

    def slots(self) -> slots.Grid:
        tried = find.slot_states(self.job) if self.job.progress.get("tried") else []
        progress = spec_cache.load_progress(self.job.progress, tried)
        progress = progress.carried(self.job.round, self.job.round_at)
        return slots.grid(self.job.count, find.slots(self.job), progress, state=self.job.state)

    def warnings(self) -> list[dict[str, str]]:
        """What is odd about its specification, as long as that matters."""
        if self.job.state in ENDED:
            return []
        try:
            found = spec_cache.specs([(self.job.pk, self.job.version)])
        except KeyError:  # What is stored was never a specification; the page is still drawn.
            return []
        return spec_warnings.warnings(list(found.values()))[0] if found else []

    def explain(self) -> explain.Explanation | None:
        """What the job waits for, with the record of the evaluation that found it so."""
        if self.job.state in ENDED:
            return None
        reason = explain.foremost((*of_job(self.job), *self.silent), self.now)
        last = next((look for look in self.looks if look.finished_at), None)
        record = last.record if last else None
        if reason is not None:
            return explain.explain(reason, record if isinstance(reason, Unplaced) else None)
        if self.job.stop_requested:
            return None
        # What an earlier release blocked has only its record.
        is_blocked = self.standing is not None and self.standing.waits is not None
        return explain.of_record(record) if is_blocked and record else None

    def executions(self) -> dict[str, Any]:
        slot = self.number("slot")
        page = find.executions(self.job, self.request.GET.get("before", ""), slot)
        links = page.links(**self.kept, **({} if slot is None else {"slot": slot}))
        return {"lines": executions.lines(page.rows, self.now), "slot": slot, **links}

    def evaluations(self) -> Part[queue.Line]:
        return self.looks.each(queue.line)

    def events(self) -> Any:
        return find.events(self.job)


class Definition(OneJob):
    folder = "definition"
    regions = ("header", "versions")
    numbers = ("version",)

    def versions(self) -> dict[str, Any]:
        found = find.versions(self.job)
        wanted = self.number("version")
        chosen = find.version(self.job, wanted) if wanted is not None else None
        chosen = chosen or (found[0] if found else None)
        older = find.version_before(chosen) if chosen else None
        intent = self.job.intent if chosen and chosen.number == self.job.version else {}
        return {
            "all": found,
            "chosen": chosen,
            "lines": specification.lines(chosen.in_full(**intent)) if chosen else [],
            "older": older,
            "changes": specification.changes(older.in_full(), chosen.in_full())
            if older and chosen
            else [],
        }
