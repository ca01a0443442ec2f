"""What should change about a job, whatever its type: see ``policy`` for how types differ.

What is decided when: count what has ended, see whether the job as a whole has ended, compare
what is live with what is wanted, find nodes for what is missing, then say how the job stands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np

from orchestrator.explain import reasons
from orchestrator.explain.reasons import Completed, NoPlaceInTime, Stopped, TookTooLong
from orchestrator.lifecycle import ENDED, NOT_BEGUN, Desired, JobState, Observed, StopCause
from orchestrator.spec import Approval

from . import waits
from .bad_nodes import avoided, has_many, has_refusing
from .bids import BidScorer, used_rows
from .decision import Decision, Ending, Placement
from .feasibility import demand
from .placement import choose, how_many
from .placement_record import blocked, record
from .plan import Place, Plan, Why
from .policy import policy_of
from .ranking import Question
from .reconcile import Diff, finished, reconcile
from .running import one_by_one, with_exceptions
from .slot_history import SlotHistory, slot_history
from .status import followups, reasons_of, shortage, summary
from .world import TERMINAL, ExecutionView, Progress, World

_ACTIVE = frozenset({Observed.PREPARING, Observed.RUNNING, Observed.PUBLISHING})
_ENDED = {
    JobState.COMPLETED: StopCause.JOB_COMPLETED,
    JobState.FAILED: StopCause.JOB_FAILED,
    JobState.STOPPED: StopCause.JOB_STOPPED,
}
_NOT_RUNNING = TERMINAL | NOT_BEGUN
_MAY_BE_REFUSED = NOT_BEGUN | {Observed.BID_ACCEPTED}


def schedule(world: World) -> Plan:
    """Decide what should change about a job; raises LookupError for a type that has no policy."""
    world = with_exceptions(world)
    history = slot_history(world)
    ending = has_ended(world, history)
    decided = _decide(world, history, ending)
    if ending is None and (late := waited_too_long(decided)):
        decided = _decide(world, history, late, decided.progress)
    return _plan(decided)


def has_ended(world: World, history: SlotHistory) -> Ending | None:
    """Whether the job as a whole wants nothing any longer.  The first that holds counts."""
    job, progress = world.job, history.progress
    if job.state in ENDED:
        detail = job.stop_reason if job.state is JobState.STOPPED else ""
        return Ending(job.state, None, Why(_ENDED[job.state], detail))
    if policy_of(job.spec.type).slots_complete and all(finished(world, history)):
        return Ending(JobState.COMPLETED, Completed(job.count), Why(StopCause.JOB_COMPLETED))
    if job.stop_requested:
        why = Why(StopCause.JOB_STOPPED, job.stop_reason)
        return Ending(JobState.STOPPED, Stopped(job.stopped_by, job.stop_reason), why)
    if progress.failed:
        return Ending(JobState.FAILED, progress.failed, Why(StopCause.JOB_FAILED))
    total = job.spec.timeouts.total
    if total is not None and job.submitted_at + timedelta(seconds=total) <= world.now:
        return Ending(JobState.FAILED, TookTooLong(total), Why(StopCause.JOB_TIMED_OUT))
    return None


def waited_too_long(decided: Decision) -> Ending | None:
    """Whether unplaced work has waited longer than the job allows."""
    limit = decided.world.job.spec.timeouts.queue
    if limit is None:
        return None
    begun = decided.world.now - timedelta(seconds=limit)
    late = [wait for wait in decided.progress.waits if wait.since <= begun]
    slots = sum(any(wait.holds(slot) for wait in late) for slot in decided.placement.unplaced)
    if not slots:
        return None
    reason = NoPlaceInTime(slots, decided.world.job.count, limit, shortage(decided))
    why = Why(StopCause.JOB_TIMED_OUT, "no place was found in time")
    return Ending(JobState.FAILED, reason, why)


def _decide(
    world: World, history: SlotHistory, ending: Ending | None, progress: Progress | None = None
) -> Decision:
    world = one_by_one(world) if ending else world
    diff = reconcile(
        world,
        history,
        unwanted=ending.why if ending else None,
        score_bids=BidScorer(world.room, partial(question, world, history)),
        budget=policy_of(world.job.spec.type).budget(world.job.count),
    )
    if ending is not None:
        history = history.given_up()
        waited = (progress or history.progress).waits
        return Decision(world, history, replace(history.progress, waits=waited), diff, ending)
    placement = find_places(world, history, diff)
    progress = replace(
        history.progress,
        waits=_waits(world, history, diff, placement),
        turn=_turn(world, history, placement),
    )
    return Decision(world, history, progress, diff, None, placement)


def find_places(world: World, history: SlotHistory, diff: Diff) -> Placement:
    """Nodes for the missing slots, as many as fit."""
    if not diff.missing:
        return Placement()
    spec, asked = world.job.spec, question(world, history, (*diff.keep, *diff.hold))
    asked = replace(asked, avoid=_avoid(world, history))
    chosen = choose(world.room, asked, len(diff.missing), now=world.now, ask=spec.ask)
    desired = Desired.PENDING if spec.approval is Approval.BID else Desired.RUNNING
    progress, ids = history.progress, world.nodes.ids
    attempt = _attempts(world, progress)
    place = tuple(
        Place(slot, attempt(slot), ids[row], desired, world.job.version, spec.resources)
        for slot, rows in zip(diff.missing, chosen, strict=False)
        for row in rows
    )
    unplaced = diff.missing[len(chosen) :]
    if not unplaced:
        return Placement(place)
    return Placement(
        place,
        unplaced,
        blocked(
            world.room,
            asked.demand,
            len(unplaced),
            waits.longest(progress.waits, unplaced) or world.now,
        ),
        avoided=_only_avoided_have_room(world, asked),
    )


def _attempts(world: World, progress: Progress) -> Callable[[int], int]:
    """The number of a slot's next attempt in this round: above what still runs there, too."""
    last = dict(progress.attempts)
    for it in world.executions:
        if it.round == world.job.round and it.observed not in _NOT_RUNNING:
            last[it.slot] = max(last.get(it.slot, 0), it.attempt)
    return lambda slot: last.get(slot, 0) + 1


def question(world: World, history: SlotHistory, keep: Sequence[ExecutionView]) -> Question:
    """What placing one more execution of this job would ask."""
    spec, index, bad = world.job.spec, world.nodes.index, history.progress.bad_nodes
    return Question(
        demand=demand(spec),
        algorithm=world.algorithm,
        affinities=spec.affinities,
        spread=spec.spread,
        count=world.job.count,
        used=used_rows(world, keep),
        failures={index[n]: it.failed for n, it in bad.items() if it.failed and n in index},
    )


def _avoid(world: World, history: SlotHistory) -> frozenset[int]:
    """The rows that are not asked now, because they have just refused.

    When as many have as are remembered, nobody is asked until one may be asked again; and then
    one node after the other, whatever it scores: those that are forgotten would be asked for ever.
    """
    index, progress, now = world.nodes.index, history.progress, world.now
    refusing = [index[node] for node in avoided(progress.bad_nodes, now, index)]
    if not has_refusing(progress.bad_nodes, now, index):
        return frozenset(refusing)
    every = frozenset(range(len(index)))
    if has_many(refusing):
        return every
    fitting = how_many(world.room, Question(demand(world.job.spec))) > 0
    fitting[refusing] = False
    turns = np.flatnonzero(fitting).tolist()
    last = index.get(progress.turn, -1)
    return every - {next((row for row in turns if row > last), *turns[:1])} if turns else every


def _turn(world: World, history: SlotHistory, placement: Placement) -> str:
    """The node that was asked last, when each is in its turn."""
    progress = history.progress
    if not has_refusing(progress.bad_nodes, world.now, world.nodes.index):
        return ""
    return placement.place[-1].node if placement.place else progress.turn


def _only_avoided_have_room(world: World, asked: Question) -> bool:
    """Whether time will help: a node that has just refused the job would have room."""
    return bool((how_many(world.room, asked)[list(asked.avoid)] > 0).any())


def _waits(world: World, history: SlotHistory, diff: Diff, placement: Placement) -> waits.Waits:
    """Who waits since when, each slot for itself."""
    before, unplaced = history.progress.waits, placement.unplaced
    # What its node refuses puts the slot back, which has waited all along.
    uncertain = {it.slot for it in diff.keep if it.observed in _MAY_BE_REFUSED} if before else set()
    uncertain.update(it.slot for it in placement.place)
    return waits.after(before, world.now, unplaced, uncertain)


def _plan(decided: Decision) -> Plan:
    diff, placement = decided.diff, decided.placement
    state = _state(decided)
    unplaced = placement.blocked if not placement.avoided else None
    return Plan(
        place=placement.place,
        stop=diff.stop,
        approve=diff.approve,
        settle=decided.history.settle,
        progress=decided.progress,
        state=state,
        reasons=reasons_of(decided, state),
        tally=_tally(decided),
        followups=() if state in ENDED else followups(decided),
        blocked=unplaced,
        record=_record(decided) if placement.unplaced else None,
        summary=summary(decided),
    )


def _record(decided: Decision) -> dict[str, Any]:
    world = decided.world
    found = record(world.room, demand(world.job.spec))
    return {**found, "reason": reasons.dump([shortage(decided)])[0]}


def _state(decided: Decision) -> JobState:
    live = [it for it in decided.world.executions if it.observed not in TERMINAL]
    if decided.ending is not None:
        # Stopped means that nothing runs any longer; failed and completed are facts already.
        stopping = decided.ending.state is JobState.STOPPED and live
        if decided.world.job.state in ENDED or not stopping:
            return decided.ending.state
    active = len(decided.world.running) or any(it.observed in _ACTIVE for it in live)
    return JobState.RUNNING if active else JobState.QUEUED


def _tally(decided: Decision) -> dict[str, int]:
    """Executions of this round and before by observed state, after the plan.

    Where slots complete, of the completed ones as many as have a slot of the job.
    """
    tally = Counter(decided.progress.outcomes)
    settled = set(decided.history.settle)
    tally.update(str(it.observed) for it in decided.world.executions if it.id not in settled)
    if running := len(decided.world.running):
        tally[str(Observed.RUNNING)] += running
    if decided.placement.place:
        tally[str(Observed.NEW)] += len(decided.placement.place)
    if policy_of(decided.world.job.spec.type).slots_complete:
        done = finished(decided.world, decided.history).count(1)
        tally[str(Observed.COMPLETED)] = min(done, tally[str(Observed.COMPLETED)])
    return {state: number for state, number in sorted(tally.items()) if number}
