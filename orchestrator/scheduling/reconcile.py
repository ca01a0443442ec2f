"""What must change so that the executions match the job."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from orchestrator.lifecycle import Desired, StopCause

from .bids import BidScorer, accept_bids
from .feasibility import as_wanted
from .plan import Stop, Why
from .replacement import Budget, Replacement, replace
from .slot_history import SlotHistory
from .slot_set import flags
from .world import TERMINAL, Bools, ExecutionView, World


@dataclass(frozen=True, slots=True)
class Diff:
    """Every live execution is in exactly one of ``keep``, ``hold``, ``stop`` and ``ending``.

    Those that the world has in columns are in none: they stay.  ``hold`` are those that must go
    and stay until others run.  ``ending`` have been told to stop before.  ``approve`` are among
    ``keep``.  ``missing`` are the slots that need a node now: those that nothing kept, held,
    completed or awaited stands for, and those whose new execution comes before the old one goes.
    """

    keep: tuple[ExecutionView, ...] = ()
    hold: tuple[ExecutionView, ...] = ()
    stop: tuple[Stop, ...] = ()
    ending: tuple[ExecutionView, ...] = ()
    approve: tuple[str, ...] = ()
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """What the rules look at.

    ``done`` has a byte for each slot, 1 when it has completed.  ``suits`` has for each node
    whether it is as the job wants it.
    """

    world: World
    history: SlotHistory
    done: bytes
    suits: Bools


Rule = Callable[[SlotFacts, ExecutionView], bool]


def _runs_something_else(facts: SlotFacts, it: ExecutionView) -> bool:
    return it.generation != facts.world.job.generation


def _is_of_another_round(facts: SlotFacts, it: ExecutionView) -> bool:
    return it.round != facts.world.job.round


def _bids_from_a_node_that_takes_nothing(facts: SlotFacts, it: ExecutionView) -> bool:
    if it.desired is not Desired.PENDING:
        return False
    nodes = facts.world.nodes
    row = nodes.index.get(it.node)
    return row is None or not nodes.ready[row]


def _is_where_it_must_not_be(facts: SlotFacts, it: ExecutionView) -> bool:
    row = facts.world.nodes.index.get(it.node)
    return row is not None and not facts.suits[row]


#: Causes for which an execution stops at once.  The first that holds is the one given, so the
#: order is part of the meaning.
STOP: tuple[tuple[StopCause, Rule], ...] = (
    (
        StopCause.NEWER_VERSION,
        lambda facts, it: _is_of_another_round(facts, it) and _runs_something_else(facts, it),
    ),
    (StopCause.RERUN, _is_of_another_round),
    (StopCause.SCALED_IN, lambda facts, it: it.slot >= facts.world.job.count),
    (StopCause.SLOT_COMPLETED, lambda facts, it: facts.done[it.slot] == 1),
    (StopCause.OVERRAN, lambda facts, it: it.id in facts.history.overran),
    (StopCause.NODE_NOT_READY, _bids_from_a_node_that_takes_nothing),
)

#: Causes for which an execution is replaced, as far as the job's budget allows.
REPLACE: tuple[tuple[StopCause, Rule], ...] = (
    (StopCause.NEWER_VERSION, _runs_something_else),
    (StopCause.CONSTRAINTS_UNMET, _is_where_it_must_not_be),
)


def is_as_wanted(facts: SlotFacts, it: ExecutionView) -> bool:
    """Whether none of all those holds for one that is to run: as for nearly all of a large job."""
    job, row = facts.world.job, facts.world.nodes.index.get(it.node)
    return (
        it.generation == job.generation
        and it.round == job.round
        and it.slot < job.count
        and not facts.done[it.slot]
        and it.id not in facts.history.overran
        and (row is None or bool(facts.suits[row]))
    )


def reconcile(
    world: World,
    history: SlotHistory,
    *,
    unwanted: Why | None,
    score_bids: BidScorer,
    budget: Budget,
) -> Diff:
    """Compare what the job wants with what there is.

    With *unwanted* the job wants no execution, and that is why.
    """
    suits = as_wanted(world.nodes, world.job.spec.requirements)
    facts = SlotFacts(world, history, finished(world, history), suits)
    live, stop, ending = [], [], []
    candidates: dict[str, StopCause] = {}
    for execution in world.executions:
        if execution.observed in TERMINAL:
            continue
        if execution.desired is Desired.STOPPED:
            ending.append(execution)
        elif unwanted is not None:
            stop.append(Stop(execution.id, *_cause_of_its_own(facts, execution, unwanted)))
        elif execution.desired is Desired.RUNNING and is_as_wanted(facts, execution):
            live.append(execution)
        elif cause := _first(STOP, facts, execution):
            stop.append(Stop(execution.id, cause))
        else:
            live.append(execution)
            if cause := _first(REPLACE, facts, execution):
                candidates[execution.id] = cause
    others = facts.done.count(1) + len(world.running)
    replaced = replace(candidates, live, world.job.count, budget, others=others)
    keep = [it for it in live if it.id not in candidates]
    keep, surplus, approve = accept_bids(keep, world.job.spec.ask, score_bids)
    return Diff(
        keep=tuple(keep),
        hold=replaced.hold,
        stop=(*stop, *replaced.stop, *surplus),
        ending=tuple(ending),
        approve=approve,
        missing=() if unwanted else _missing(facts, keep, replaced),
    )


def _cause_of_its_own(facts: SlotFacts, it: ExecutionView, unwanted: Why) -> Why:
    """Why one stops of a job that wants none: what is so of it alone may be why there is no job.

    That its slot is too many is why only where the job has completed without it.
    """
    has_completed = unwanted.cause is StopCause.JOB_COMPLETED
    own = {StopCause.OVERRAN, *([StopCause.SCALED_IN] if has_completed else [])}
    cause = _first(((cause, rule) for cause, rule in STOP if cause in own), facts, it)
    return Why(cause) if cause else unwanted


def _first(
    table: Iterable[tuple[StopCause, Rule]], facts: SlotFacts, execution: ExecutionView
) -> StopCause | None:
    for cause, holds in table:  # Of thousands of executions: a generator costs as much again.
        if holds(facts, execution):
            return cause
    return None


def finished(world: World, history: SlotHistory) -> bytes:
    """One byte for each slot: 1 when it has completed."""
    return flags(history.progress.completed, world.job.count)


def _missing(
    facts: SlotFacts, keep: Iterable[ExecutionView], replaced: Replacement
) -> tuple[int, ...]:
    """The slots without anything: not done, not kept, not held by a lost one, not backing off."""
    taken = bytearray(facts.done)
    np.frombuffer(taken, dtype=np.uint8)[facts.world.running.slots] = 1
    for held in replaced.hold:
        taken[held.slot] = 1
    for slot in replaced.first:
        taken[slot] = 0
    progress = facts.history.progress
    for execution in keep:
        taken[execution.slot] = 1
    waiting = (*progress.retry_at, *(execution.slot for execution in facts.history.held))
    for slot in waiting:
        if slot < len(taken):
            taken[slot] = 1
    return tuple(np.flatnonzero(np.frombuffer(taken, dtype=np.uint8) == 0).tolist())
