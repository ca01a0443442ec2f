"""Which executions are replaced now, and which later: never more at once than a budget allows.

For updates, constraints that no longer hold, nodes that drain and unhealthy executions alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.lifecycle import Observed, StopCause

from .plan import Stop
from .world import ExecutionView


@dataclass(frozen=True, slots=True)
class Budget:
    """How far the executions of a job may differ from its count while some are replaced.

    ``max_unavailable`` is how many slots may have nothing that runs, ``max_surge`` how many may
    have two executions.  One of them is more than 0, or nothing would ever be replaced.
    """

    max_unavailable: int
    max_surge: int = 0

    def __post_init__(self) -> None:
        if self.max_unavailable < 0 or self.max_surge < 0:
            raise ValueError("a budget is not negative")
        if not self.max_unavailable and not self.max_surge:
            raise ValueError("max_unavailable or max_surge must be more than 0")


@dataclass(frozen=True, slots=True)
class Replacement:
    """``stop`` goes now, ``hold`` stays for now; ``first`` are slots whose new one comes first."""

    stop: tuple[Stop, ...] = ()
    hold: tuple[ExecutionView, ...] = ()
    first: tuple[int, ...] = ()


def replace(
    candidates: Mapping[str, StopCause],
    live: Iterable[ExecutionView],
    count: int,
    budget: Budget,
    others: int = 0,
) -> Replacement:
    """Which of *candidates* (executions, and why they must go) stop now, within *budget*.

    *live* are all executions of the job that have not been told to stop, *others* how many further
    slots have one that runs and stays, or want none any longer.  What does not run is stopped at
    once, and so is what a new one stands in for already; the lowest slots come first.
    """
    if not candidates:  # As nearly always: then nobody is counted.
        return Replacement()
    slots: dict[int, list[ExecutionView]] = {}
    for it in sorted(live, key=lambda it: (it.slot, it.id)):
        slots.setdefault(it.slot, []).append(it)
    available = sum(any(map(_runs, them)) for them in slots.values()) + others
    may_go = available - (count - budget.max_unavailable)
    may_come = budget.max_surge - sum(_doubled(candidates, them) for them in slots.values())
    stop: list[Stop] = []
    hold: list[ExecutionView] = []
    first: list[int] = []
    for slot, them in slots.items():
        old = [it for it in them if it.id in candidates]
        new = [it for it in them if it.id not in candidates]
        # One stays for now, and only if nothing else would run in its place.
        kept = [] if any(map(_runs, new)) else [it for it in old if _runs(it)][:1]
        if kept and may_go > 0:
            may_go -= 1
            kept = []
        stop += [Stop(it.id, candidates[it.id]) for it in old if it not in kept]
        hold += kept
        if kept and not new and may_come > 0:
            may_come -= 1
            first.append(slot)
    return Replacement(tuple(stop), tuple(hold), tuple(first))


def _runs(it: ExecutionView) -> bool:
    return it.observed is Observed.RUNNING


def _doubled(candidates: Mapping[str, StopCause], them: Iterable[ExecutionView]) -> bool:
    """Whether a slot has an old execution and a new one."""
    return len({it.id in candidates for it in them}) == 2
