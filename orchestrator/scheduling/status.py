"""How a job stands, in sentences, and when it must be looked at again."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

from orchestrator.formatting import clock, counted
from orchestrator.lifecycle import ENDED, Desired, JobState, Trigger

from .decision import Decision
from .plan import FollowUp
from .slot_history import overruns_at
from .world import TERMINAL

#: Nodes that refused are asked again after at most this long, so that freed ones count too.
LOOK_AGAIN = timedelta(seconds=60)


def reason(decided: Decision, state: JobState) -> str:
    """Why the job is in *state*: always something for a queued job."""
    job = decided.world.job
    if decided.ending is not None:
        if state in ENDED:
            return decided.ending.reason
        live = sum(it.observed not in TERMINAL for it in decided.world.executions)
        return f"stopping: {counted(live, 'execution')} still to end"
    phrases = [*_waiting(decided)]
    if state is JobState.QUEUED:
        phrases += _starting(decided)
    if not phrases and state is JobState.QUEUED:
        return f"{counted(job.spec.count, 'slot')} to place"
    return "; ".join(phrases)


def summary(decided: Decision) -> str:
    """What the plan does, for the evaluation's history."""
    placement, diff = decided.placement, decided.diff
    done = (
        ("placed", len(placement.place)),
        ("approved", len(diff.approve)),
        ("stopped", len(diff.stop)),
        ("settled", len(decided.history.settle)),
    )
    parts = [f"{verb} {number}" for verb, number in done if number]
    if placement.unplaced:
        parts.append(f"{placement.unplaced} waiting for {_for_what(decided)}")
    if decided.ending is not None and decided.world.job.state not in ENDED:
        parts.append(f"{decided.ending.state}: {decided.ending.reason}")
    return ", ".join(parts) or "nothing to do"


def followups(decided: Decision) -> tuple[FollowUp, ...]:
    """When time alone will change the decision, the earliest first; all of it, every time."""
    if decided.ending is not None:
        return ()
    world, progress = decided.world, decided.progress
    timeouts = world.job.spec.timeouts
    found: list[FollowUp] = []
    if progress.retry_at:
        at = min(progress.retry_at.values())
        found.append(FollowUp(at, Trigger.RETRY, "a slot may be tried again"))
    overruns = [overruns_at(world, execution) for execution in decided.diff.keep]
    if soonest := min((at for at in overruns if at is not None), default=None):
        why = "an execution has run as long as it may"
        found.append(FollowUp(soonest, Trigger.EXECUTION_TIMEOUT, why))
    if timeouts.total is not None:
        at = world.job.submitted_at + timedelta(seconds=timeouts.total)
        found.append(FollowUp(at, Trigger.JOB_TIMEOUT, "the job has taken as long as it may"))
    since = progress.waiting_since
    if decided.placement.unplaced and timeouts.queue is not None and since is not None:
        at = since + timedelta(seconds=timeouts.queue)
        found.append(FollowUp(at, Trigger.QUEUE_TIMEOUT, "a slot has waited as long as it may"))
    if decided.placement.avoided:
        found.append(FollowUp(_again(decided), Trigger.RETRY, "a node may be asked again"))
    return tuple(sorted(found, key=lambda followup: followup.at))


def _waiting(decided: Decision) -> list[str]:
    phrases = []
    placement, progress, job = decided.placement, decided.progress, decided.world.job
    if placement.unplaced:
        slots = f"{placement.unplaced} of {counted(job.spec.count, 'slot')}"
        if placement.avoided or placement.blocked is None:
            why = f"asked again at {clock(_again(decided))}"
        else:
            why = placement.blocked.sentence
        phrases.append(f"waiting for {_for_what(decided)}: {slots}; {why}")
    if progress.retry_at:
        at = clock(min(progress.retry_at.values()))
        slots = counted(len(progress.retry_at), "slot")
        phrases.append(f"{slots} to be tried again, the next at {at}")
    if decided.history.held:
        nodes = Counter(_name(decided, it.node) for it in decided.history.held)
        names = ", ".join(sorted(nodes)[:3]) + (" and others" if len(nodes) > 3 else "")
        slots = counted(len(decided.history.held), "slot")
        phrases.append(f"{slots} waiting for lost nodes to return: {names}")
    return phrases


def _starting(decided: Decision) -> list[str]:
    phrases = []
    approved = set(decided.diff.approve)
    starting = sum(it.desired is Desired.RUNNING or it.id in approved for it in decided.diff.keep)
    asked = len(decided.diff.keep) - starting
    placed = decided.placement.place
    asked += sum(place.desired is Desired.PENDING for place in placed)
    starting += sum(place.desired is Desired.RUNNING for place in placed)
    if starting:
        phrases.append(f"{counted(starting, 'execution')} about to start")
    if asked:
        phrases.append(f"waiting for {counted(asked, 'bid')}")
    if decided.diff.ending and not phrases:
        phrases.append(f"{counted(len(decided.diff.ending), 'execution')} still to end")
    return phrases


def _for_what(decided: Decision) -> str:
    if decided.placement.avoided:
        return "nodes that have refused"
    blocked = decided.placement.blocked
    return "a suitable node" if blocked is not None and blocked.impossible else "capacity"


def _again(decided: Decision) -> datetime:
    """When nodes that refused are asked again."""
    latest = decided.world.now + LOOK_AGAIN
    return min([*decided.progress.avoid.values(), latest])


def _name(decided: Decision, node: str) -> str:
    cluster = decided.world.cluster
    row = cluster.index.get(node)
    return node if row is None else cluster.names[row]
