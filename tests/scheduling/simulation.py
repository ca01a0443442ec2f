"""A cluster that obeys the plans of one job, while people change their minds and machines fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

from nodes.protocol.messages import UNKNOWN_OUTCOME
from orchestrator import spec as specs
from orchestrator.lifecycle import ENDED, OBSERVED, Desired, JobState, Observed, StopCause
from orchestrator.scheduling import intent
from orchestrator.scheduling.plan import Plan
from orchestrator.scheduling.slot_scheduler import schedule
from orchestrator.scheduling.world import ExecutionView, JobView, World
from tests.scheduling.worlds import (
    NOW,
    cluster,
    execution,
    in_columns,
    node,
    seconds,
    unordered,
)
from tests.scheduling.worlds import intent as intent_of


class Simulation:
    """Nodes that do as they are told, and fail, refuse and get lost as *chance* says.

    Each evaluation is checked: a plan that breaks what every plan promises raises.
    """

    def __init__(self, chance: Random, spec: specs.JobSpec, nodes: list[Any]) -> None:
        self.chance, self.now, self.wake = chance, NOW, NOW
        self.nodes = [node(it) if isinstance(it, str) else it for it in nodes]
        self.executions: dict[str, ExecutionView] = {}
        self.versions = {1: spec}
        self.wanted = intent_of(spec)
        self.job = self._view(state=JobState.PENDING, submitted_at=NOW)
        #: How often each slot has started, and has failed, in each round.
        self.starts: Counter[tuple[int, int]] = Counter()
        self.failures: Counter[tuple[int, int]] = Counter()

    # --- people ----------------------------------------------------------------------------------

    def submit(self, spec: specs.JobSpec, *, rerun: bool = False) -> None:
        now = replace(self.wanted, state=self.job.state, stop_requested=self.job.stop_requested)
        done = intent.submit(now, spec, rerun=rerun)
        if not done.is_change:
            return
        self.wanted = done.intent
        self.versions[done.intent.version] = spec
        again = {"state": JobState.PENDING} if self.job.state in ENDED else {}
        renewed = {"submitted_at": self.now, **again} if done.renewed else {}
        self.job = replace(self._view(**renewed), progress=self.job.progress)

    def stop(self) -> None:
        if self.job.state not in ENDED:
            self.job = replace(self.job, stop_requested=True)

    def _view(self, **differing: Any) -> JobView:
        before = {} if not hasattr(self, "job") else {"state": self.job.state}
        since = {} if not hasattr(self, "job") else {"submitted_at": self.job.submitted_at}
        return JobView(
            **{
                "id": "j",
                "name": "job",
                "spec": self.versions[self.wanted.version],
                "count": self.wanted.count,
                "version": self.wanted.version,
                "generation": self.wanted.generation,
                "round": self.wanted.round,
                **before,
                **since,
                **differing,
            }
        )

    # --- machines --------------------------------------------------------------------------------

    def lose(self, name: str) -> None:
        """The node is silent: what it may run keeps its room until it is back."""
        self._there(name)["unready"] = "is lost"
        for it in self._on(name):
            self.end(it, "lost", reserved=it.desired is not Desired.PENDING)

    def find(self, name: str) -> None:
        """The node is back, and has given up what it was told is lost."""
        self._there(name)["unready"] = ""
        for it in list(self.executions.values()):
            if it.node == name and it.observed is Observed.LOST:
                self.change(it.id, reserved=False)

    def drain(self, name: str) -> None:
        self._there(name)["unready"] = "drains"

    def reject(self, name: str) -> None:
        """The node is none of ours any longer."""
        self.nodes.remove(self._there(name))
        for it in list(self.executions.values()):
            if it.node == name and it.observed in OBSERVED.live:
                self.end(it, "lost")
            elif it.node == name:
                self.change(it.id, reserved=False)

    def _there(self, name: str) -> dict[str, Any]:
        return next(it for it in self.nodes if it["name"] == name)

    def _on(self, name: str) -> list[ExecutionView]:
        there = [it for it in self.executions.values() if it.node == name]
        return [it for it in there if it.observed in OBSERVED.live]

    # --- the loop --------------------------------------------------------------------------------

    def run(self, rounds: int = 400) -> None:
        """Go on until the job has ended, and nothing of it is left."""
        for _ in range(rounds):
            self.evaluate()
            if self.job.state in ENDED and not self.executions:
                return
            self.happen()
        raise AssertionError(f"not settled: {self.job.state} {self.job.progress}")

    def evaluate(self) -> None:
        plan = self._apply()
        again = self._apply()
        changes = (again.place, again.stop, again.approve, again.settle)
        assert changes == ((), (), (), ()), "what was decided a moment ago is decided otherwise"
        assert again.progress == plan.progress, (plan.progress, again.progress)
        assert (again.state, again.tally) == (plan.state, plan.tally), (
            plan.state,
            again.state,
            plan.tally,
            again.tally,
        )

    def _apply(self) -> Plan:
        here = cluster(*self.nodes)
        for it in self.executions.values():
            if it.reserved and it.node in here.nodes.index:
                here.take(it.node, self.versions[it.version].resources)
        here.taken.clear()
        live = tuple(sorted(self.executions.values(), key=lambda it: it.id))
        made_from = {it.version: self.versions[it.version] for it in live}
        as_views = World(self.job, live, here, self.now, specs=made_from)
        plan = schedule(in_columns(as_views))
        assert unordered(plan) == unordered(schedule(as_views))
        for stop in plan.stop:
            self.change(stop.execution, desired=Desired.STOPPED, cause=stop.cause)
        for approved in plan.approve:
            self.change(approved, desired=Desired.RUNNING)
        for settled in plan.settle:
            del self.executions[settled]
        for place in plan.place:
            here.take(place.node, place.need)
            new = execution(
                "new",
                place.slot,
                node=place.node,
                attempt=place.attempt,
                desired=place.desired,
                created_at=self.now,
                version=place.version,
                generation=specs.generation(self.versions[place.version]),
                round=self.job.round,
            )
            self.executions[new.id] = new
        assert (here.allocated <= here.nodes.capacity).all()
        self._check(plan)
        self.job = replace(self.job, state=plan.state, progress=plan.progress)
        self.wake = min([followup.at for followup in plan.followups], default=self.now)
        return plan

    def _check(self, plan: Plan) -> None:
        live = [it for it in self.executions.values() if it.observed in OBSERVED.live]
        wanted = [it for it in live if it.desired is Desired.RUNNING]
        slots = [it.slot for it in wanted]
        assert len(slots) == len(set(slots)), "a slot has two"
        asked = [it for it in live if it.desired is not Desired.STOPPED]
        assert all(it.slot < self.job.count for it in asked), "a slot is too much"
        assert all(it.round == self.job.round for it in asked), "one is of another round"
        assert not asked or plan.state not in ENDED, "one is left over"
        attempts = [(it.slot, it.attempt) for it in wanted]
        assert all(self.job.round != r or (s, a) not in attempts for r, s, a in self._ended())
        assert plan.state in ENDED or all(it.at > self.now for it in plan.followups)

    def _ended(self) -> list[tuple[int, int, int]]:
        """Attempts that have failed, by round and slot."""
        progress = self.job.progress
        return [(progress.round or 0, slot, it) for slot, it in progress.attempts.items()]

    def happen(self) -> None:
        """A second in which most of what is live goes one step."""
        live = [it for it in self.executions.values() if it.observed in OBSERVED.live]
        self.now = max(self.now + seconds(1), self.wake if not live else self.now)
        for it in live:
            if self._there_or_none(it.node) and self.chance.random() < 0.7:
                self.step(it)

    def _there_or_none(self, name: str) -> bool:
        return any(it["name"] == name and it["unready"] != "is lost" for it in self.nodes)

    def step(self, it: ExecutionView) -> None:
        draw = self.chance.random()
        if it.desired is Desired.STOPPED:
            end = {Observed.ASK_FOR_BID_ACCEPTED: "bid_rejected"}.get(it.observed, "cancelled")
            self.end(it, end)
        elif it.desired is Desired.PENDING:
            if it.observed is Observed.NEW:
                self.change(it.id, observed=Observed.ASK_FOR_BID)
            elif it.observed is Observed.ASK_FOR_BID and draw < 0.3:
                self.end(it, "ask_for_bid_rejected")
            elif it.observed is Observed.ASK_FOR_BID:
                self.change(it.id, observed=Observed.ASK_FOR_BID_ACCEPTED)
        elif it.observed is not Observed.RUNNING:
            self.starts[it.round, it.slot] += 1
            self.change(it.id, observed=Observed.RUNNING, started_at=self.now)
        elif draw < 0.25:
            self.failures[it.round, it.slot] += 1
            self.end(it, "failed")
        elif draw < 0.3:  # Its machine was restarted.
            self.change(it.id, code=UNKNOWN_OUTCOME)
            self.end(it, "failed")
        elif draw < 0.35:
            self.end(it, "lost")
        elif draw < 0.8:
            self.end(it, "completed")

    def end(self, it: ExecutionView, observed: str, *, reserved: bool = False) -> None:
        gone = {"desired": Desired.STOPPED, "ended_at": self.now, "reserved": reserved}
        if observed == "lost" and it.desired is not Desired.STOPPED:
            asked = it.desired is Desired.PENDING
            gone["cause"] = StopCause.BID_LOST if asked else StopCause.NODE_LOST
        self.change(it.id, observed=Observed(observed), **gone)

    def change(self, key: str, **differing: Any) -> None:
        self.executions[key] = replace(self.executions[key], **differing)
