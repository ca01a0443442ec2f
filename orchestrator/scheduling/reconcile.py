"""What must change so that the executions match the job."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from orchestrator.lifecycle import Desired

from .bids import BidScorer, accept_bids
from .plan import Stop
from .slot_history import SlotHistory, is_current
from .world import TERMINAL, ExecutionView, World


@dataclass(frozen=True, slots=True)
class Diff:
    """Every live execution is in exactly one of ``keep``, ``stop`` and ``ending``.

    ``ending`` have been told to stop before.  ``approve`` are among ``keep``.  ``missing`` are
    the slots that need a node now: those that nothing kept, completed or awaited stands for.
    """

    keep: tuple[ExecutionView, ...] = ()
    stop: tuple[Stop, ...] = ()
    ending: tuple[ExecutionView, ...] = ()
    approve: tuple[str, ...] = ()
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """What the rules look at.

    ``unwanted`` is why the job wants no execution at all, or empty.  ``done`` has a byte for each
    slot, 1 when it has completed.
    """

    world: World
    history: SlotHistory
    unwanted: str
    done: bytes


Rule = Callable[[SlotFacts, ExecutionView], bool]


def _runs_something_old(facts: SlotFacts, it: ExecutionView) -> bool:
    return not is_current(facts.world, it)


def _bids_from_a_node_that_takes_nothing(facts: SlotFacts, it: ExecutionView) -> bool:
    if it.desired is not Desired.PENDING:
        return False
    cluster = facts.world.cluster
    row = cluster.index.get(it.node)
    return row is None or not cluster.ready[row]


#: Reasons for which an execution must stop.  The first that holds is the one given, so the order
#: is part of the meaning.
REASONS: tuple[tuple[str, Rule], ...] = (
    ("the job was run again", lambda facts, it: it.round != facts.world.job.round),
    ("the job has a newer version", _runs_something_old),
    ("the job needs fewer slots", lambda facts, it: it.slot >= facts.world.job.spec.count),
    ("its slot has completed", lambda facts, it: facts.done[it.slot] == 1),
    ("it ran longer than the job allows", lambda facts, it: it.id in facts.history.overran),
    ("its node takes no new work any longer", _bids_from_a_node_that_takes_nothing),
)


def reconcile(world: World, history: SlotHistory, *, unwanted: str, score_bids: BidScorer) -> Diff:
    """Compare what the job wants with what there is.

    With *unwanted*, a reason, the job wants no execution.
    """
    facts = SlotFacts(world, history, unwanted, finished(world, history))
    keep, stop, ending = [], [], []
    for execution in world.executions:
        if execution.observed in TERMINAL:
            continue
        if execution.desired is Desired.STOPPED:
            ending.append(execution)
        elif reason := reason_to_stop(facts, execution):
            stop.append(Stop(execution.id, reason))
        else:
            keep.append(execution)
    keep, surplus, approve = accept_bids(keep, world.job.spec.ask, score_bids)
    return Diff(
        keep=tuple(keep),
        stop=(*stop, *surplus),
        ending=tuple(ending),
        approve=approve,
        missing=() if unwanted else _missing(facts, keep),
    )


def reason_to_stop(facts: SlotFacts, execution: ExecutionView) -> str | None:
    if facts.unwanted:
        return facts.unwanted
    return next((reason for reason, holds in REASONS if holds(facts, execution)), None)


def finished(world: World, history: SlotHistory) -> bytes:
    """One byte for each slot: 1 when it has completed."""
    count = world.job.spec.count
    done = bytearray(count)
    for first, last in history.progress.completed:
        end = min(last + 1, count)
        if first < end:
            done[first:end] = b"\x01" * (end - first)
    return bytes(done)


def _missing(facts: SlotFacts, keep: Iterable[ExecutionView]) -> tuple[int, ...]:
    """The slots without anything: not done, not kept, not held by a lost one, not backing off."""
    taken = bytearray(facts.done)
    progress = facts.history.progress
    for execution in keep:
        taken[execution.slot] = 1
    waiting = (*progress.retry_at, *(execution.slot for execution in facts.history.held))
    for slot in waiting:
        if slot < len(taken):
            taken[slot] = 1
    return tuple(np.flatnonzero(np.frombuffer(taken, dtype=np.uint8) == 0).tolist())
