"""How a job stands, as reasons, and when it must be looked at again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from orchestrator.explain import reasons, wording
from orchestrator.explain.reasons import (
    AwaitsBid,
    AwaitsLost,
    Delayed,
    Reason,
    Refused,
    Shortage,
    Starting,
    ToEnd,
    ToPlace,
    Unplaced,
)
from orchestrator.lifecycle import ENDED, Desired, JobState, Trigger

from . import waits
from .bad_nodes import avoided
from .decision import Decision
from .plan import FollowUp
from .running import next_overrun
from .slot_history import Limits
from .world import TERMINAL

#: Nodes that refused are asked again after at most this long, so that freed ones count too.
LOOK_AGAIN = timedelta(seconds=60)


def reasons_of(decided: Decision, state: JobState) -> tuple[Reason, ...] | None:
    """Why the job is in *state*: always something for a queued job; None where it stays so."""
    job = decided.world.job
    if decided.ending is not None:
        if state not in ENDED:
            live = sum(it.observed not in TERMINAL for it in decided.world.executions)
            return (ToEnd(live),)
        return None if decided.ending.reason is None else (decided.ending.reason,)
    found = [*_waiting(decided)]
    if state is JobState.QUEUED:
        found += _starting(decided)
        found += [] if found else [ToPlace(job.count)]
    return tuple(found)


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
        parts.append(f"{len(placement.unplaced)} waiting for {wording.awaited(shortage(decided))}")
    if decided.ending is not None and decided.ending.reason is not None:
        parts.append(wording.ending("the job", decided.ending.state, [decided.ending.reason]))
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
    limits = Limits.of(world)
    overruns = [limits.end_of(it) for it in decided.diff.keep] if limits else []
    overruns.append(next_overrun(world))
    if soonest := min((at for at in overruns if at is not None), default=None):
        why = "an execution has run as long as it may"
        found.append(FollowUp(soonest, Trigger.EXECUTION_TIMEOUT, why))
    if timeouts.total is not None:
        at = world.job.submitted_at + timedelta(seconds=timeouts.total)
        found.append(FollowUp(at, Trigger.JOB_TIMEOUT, "the job has taken as long as it may"))
    since = waits.longest(progress.waits, decided.placement.unplaced)
    if timeouts.queue is not None and since is not None:
        at = since + timedelta(seconds=timeouts.queue)
        found.append(FollowUp(at, Trigger.QUEUE_TIMEOUT, "a slot has waited as long as it may"))
    if decided.placement.avoided:
        found.append(FollowUp(_again(decided), Trigger.RETRY, "a node may be asked again"))
    return tuple(sorted(found, key=lambda followup: followup.at))


def shortage(decided: Decision) -> Shortage:
    """Why a slot has found no node."""
    blocked = decided.placement.blocked
    if decided.placement.avoided or blocked is None:
        return Refused(_again(decided), *_names(decided, _avoided(decided)))
    return blocked.why


def _waiting(decided: Decision) -> Iterator[Reason]:
    placement, progress = decided.placement, decided.progress
    if placement.unplaced:
        missing, count = len(placement.unplaced), decided.world.job.count
        since = waits.longest(progress.waits, placement.unplaced)
        yield Unplaced(missing, count, shortage(decided), since)
    if progress.retry_at:
        until = min(progress.retry_at.values())
        yield Delayed(len(progress.retry_at), until, progress.last_failure)
    if held := decided.history.held:
        yield AwaitsLost(len(held), *_names(decided, (it.node for it in held)))


def _starting(decided: Decision) -> list[Reason]:
    found: list[Reason] = []
    approved, placed = set(decided.diff.approve), decided.placement.place
    begun = [it.desired is Desired.RUNNING or it.id in approved for it in decided.diff.keep]
    starting = [it.node for it, has in zip(decided.diff.keep, begun, strict=True) if has]
    asked = [it for it, has in zip(decided.diff.keep, begun, strict=True) if not has]
    starting += [place.node for place in placed if place.desired is Desired.RUNNING]
    bidders = [it.node for it in asked]
    bidders += [place.node for place in placed if place.desired is Desired.PENDING]
    if starting:
        found.append(Starting(len(starting), *_names(decided, starting)))
    if bidders:
        since = min((it.created_at for it in asked), default=decided.world.now)
        names, more = _names(decided, bidders)
        found.append(AwaitsBid(len(bidders), names, since, more))
    if decided.diff.ending and not found:
        found.append(ToEnd(len(decided.diff.ending)))
    return found


def _avoided(decided: Decision) -> dict[str, datetime]:
    return avoided(decided.progress.bad_nodes, decided.world.now, decided.world.nodes.index)


def _again(decided: Decision) -> datetime:
    """When nodes that refused are asked again."""
    latest = decided.world.now + LOOK_AGAIN
    return min([*_avoided(decided).values(), latest])


def _names(decided: Decision, nodes: Iterable[str]) -> tuple[tuple[str, ...], int]:
    known = decided.world.nodes
    rows = ((node, known.index.get(node)) for node in set(nodes))
    return reasons.named(node if row is None else known.names[row] for node, row in rows)
