"""Moves of locked executions, gathered, and written with everything that follows from them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from nodes.hints import Hint, after_commit
from nodes.protocol.resources import Resources
from orchestrator import broker
from orchestrator.explain import stop_causes
from orchestrator.lifecycle import (
    OBSERVED,
    Desired,
    Observed,
    StopCause,
    Trigger,
    Writer,
    written_by,
)

from .lanes import Observation, Outcome, give_up, observe, order, told
from .locking import LockedExecution, lock_nodes
from .reservations import release, reserve

#: What a job is evaluated for when one of its executions gets there; of several, the first.
#: Where nothing stands there is nothing for a scheduler to decide.
_TRIGGERS = {
    Observed.LOST: Trigger.NODE_LOST,
    Observed.FAILED: Trigger.EXECUTION_FAILED,
    Observed.ASK_FOR_BID_REJECTED: Trigger.EXECUTION_FAILED,
    Observed.ASK_FOR_BID_ACCEPTED: Trigger.EXECUTION_UPDATE,
    Observed.BID_REJECTED: Trigger.EXECUTION_UPDATE,
    Observed.PREPARING: Trigger.EXECUTION_UPDATE,
    Observed.RUNNING: Trigger.EXECUTION_UPDATE,
    Observed.PUBLISHING: Trigger.EXECUTION_UPDATE,
    Observed.COMPLETED: Trigger.EXECUTION_UPDATE,
    Observed.CANCELLED: Trigger.EXECUTION_UPDATE,
}


class Changes:
    """What is to be written of executions that the caller has locked.

    ``observed`` and ``reserved`` of an execution are at once what they will be.  `write` moves
    them, gives what they held back to their nodes, asks for the evaluations of their jobs and
    tells whoever watches, in the caller's transaction; locks of nodes are taken there, last.
    """

    def __init__(self) -> None:
        self._moves: list[Observation] = []
        self._told: dict[UUID, int] = {}
        self._given_up: list[UUID] = []
        self._ordered: list[LockedExecution] = []
        self._freed: dict[UUID, Resources] = {}
        self._wanted: dict[Trigger, set[UUID]] = {it: set() for it in _TRIGGERS.values()}

    def follow(
        self,
        execution: LockedExecution,
        events: Iterable[str],
        *,
        reason: str,
        actor: str = "",
        writer: Writer | None = None,
        releases: bool = True,
        outcome: Outcome = Outcome(),  # noqa: B008 - immutable
        told_rev: int = 0,
        cause: str = "",
    ) -> None:
        """Move it by *events*, one after the other; the last of them has the *outcome*.

        The one that ends it *releases* what it held.  When somebody ends it, and not it itself,
        the last says so by a *cause*, a `StopCause`, of which *reason* is the detail; why it had
        been told to stop before stays.
        """
        if cause and execution.desired is Desired.STOPPED:
            cause, reason = "", stop_causes.sentence(cause, reason)
        listed = list(events)
        for number, event in enumerate(listed, 1):
            before, after = execution.observed, OBSERVED.after(execution.observed, event)
            freed = releases and after in OBSERVED.terminal
            self._moves.append(
                Observation(
                    execution=execution.id,
                    before=before,
                    after=after,
                    writer=writer or written_by(event),
                    actor=actor,
                    reason=reason,
                    releases=freed,
                    told_rev=told_rev,
                    outcome=outcome if number == len(listed) else Outcome(),
                    cause=cause if number == len(listed) else "",
                )
            )
            execution.observed = after
            if freed:
                self._free(execution)
            if after in _TRIGGERS:
                self._wanted[_TRIGGERS[after]].add(execution.job)

    def lose(
        self,
        execution: LockedExecution,
        cause: StopCause,
        detail: str = "",
        *,
        actor: str = "",
        releases: bool = True,
    ) -> None:
        """It is lost by that *cause*; what nobody has approved yet is a lost bid, and no more."""
        why = stop_causes.sentence(cause, detail)
        if execution.desired is Desired.PENDING:
            cause, detail = StopCause.BID_LOST, why
        self.follow(
            execution,
            ["lose"],
            actor=actor,
            reason=detail,
            cause=cause,
            releases=releases,
            outcome=Outcome(code="lost", message=why),
        )

    def tell(self, execution: LockedExecution, order_rev: int) -> None:
        """Its node has taken the order of that revision."""
        self._told[execution.id] = max(self._told.get(execution.id, 0), order_rev)

    def give_up(
        self, execution: LockedExecution, trigger: Trigger = Trigger.EXECUTION_UPDATE
    ) -> None:
        """It is over, and holds nothing of its node any longer; its job may wait for that."""
        self._given_up.append(execution.id)
        self._free(execution)
        self._wanted[trigger].add(execution.job)

    def order_again(self, execution: LockedExecution) -> None:
        """Its node is told what is wanted of it, as its newest order."""
        self._ordered.append(execution)

    def write(self) -> None:
        """Write all of it."""
        nodes = lock_nodes({*self._freed, *(it.node for it in self._ordered)})
        observe(self._moves)
        told(self._told)
        give_up(self._given_up)
        release(self._freed)
        self._order({key: node.order_rev for key, node in nodes.items()})
        asked: set[UUID] = set()
        for trigger, jobs in self._wanted.items():
            broker.enqueue(jobs - asked, trigger)
            asked |= jobs
        broker.capacity_freed(self._freed)
        after_commit(Hint.VIEW)

    def _free(self, execution: LockedExecution) -> None:
        if execution.reserved:
            execution.reserved = False
            held = self._freed.get(execution.node, Resources())
            self._freed[execution.node] = held + execution.resources

    def _order(self, newest: dict[UUID, int]) -> None:
        revisions = {}
        for execution in self._ordered:
            newest[execution.node] += 1
            revisions[execution.id] = newest[execution.node]
        if revisions:
            order(revisions)
            reserve({}, {it.node: newest[it.node] for it in self._ordered})
            after_commit(Hint.ORDERS)
