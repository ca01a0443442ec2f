"""What nodes say, written down: reports in batches, and the silence of lost nodes.

Part of the Endpoint: the only writer of the observed lane besides the ComputeForwarder, whose
part (what nodes have been told) is written here too when it arrives in the same frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from nodes import membership
from nodes.callbacks import Inbound, Verdict
from nodes.hints import Hint, after_commit
from nodes.models import Node
from nodes.protocol.lifecycle import Connection
from nodes.protocol.messages import Happened, Report
from nodes.protocol.resources import Resources
from orchestrator import broker, journal
from orchestrator.lifecycle import OBSERVED, Observed, Trigger, Writer, path, written_by
from orchestrator.models import Execution, ExecutionOutput
from orchestrator.planners import compute_forwarder, unapproved
from orchestrator.transitions import (
    LockedExecution,
    LockedNode,
    Observation,
    Outcome,
    execution_id,
    give_up,
    lock_executions,
    lock_nodes,
    observe,
    order,
    release,
    reserve,
    told,
)

#: Reports of these leave nothing for a scheduler to decide.
_QUIET = frozenset({Observed.ASK_FOR_BID, Observed.BID_ACCEPTED})
_ENDS = frozenset({Happened.DECLINE, Happened.COMPLETE, Happened.FAIL, Happened.CANCEL})
#: The states that an execution is in when this has happened to it last.
_SAYS = {
    happened: frozenset(after for _, event, after in OBSERVED.edges() if event == happened)
    for happened in Happened
}
_BAD = frozenset({Observed.FAILED, Observed.ASK_FOR_BID_REJECTED, Observed.LOST})


def receive(batch: Sequence[Inbound], /) -> Sequence[Verdict]:
    """Apply a batch of Reports frames in one transaction; see ``nodes.callbacks.Receive``.

    Repeats have no effect.  A late report about a terminal execution is written to the journal
    and changes nothing, except that it gives back what a lost execution still held.  So is one
    about an execution of another node: a state directory that has enrolled anew has such ones.
    """
    with transaction.atomic(durable=True):
        verdicts = list(membership.fence(batch))
        accepted = [i for i, verdict in enumerate(verdicts) if verdict is Verdict.ACCEPTED]
        if any(batch[i].told or batch[i].reports for i in accepted):
            frames = [batch[i] for i in accepted]
            _Batch(frames, lock_executions(_named(frames))).write()
    return verdicts


def lose_silent() -> int:
    """Write that what is live on lost nodes is lost; how many.

    It keeps its reservation: that goes back when the node returns and reports it gone.  The rows
    are asked, so whoever marked a node as lost may have died right after.
    """
    lost = Node.objects.filter(connection=Connection.LOST)
    given_up = set(_live().filter(node__in=lost).values_list("node_id", flat=True).distinct())
    if not given_up:
        return 0
    with transaction.atomic():
        locked = lock_executions(live_on(given_up))
        # Asked again: a node may have said hello while this waited for the locks.
        silent = set(lost.filter(pk__in=given_up).values_list("pk", flat=True))
        mine = [execution for execution in locked.values() if execution.node in silent]
        return lose_locked(mine, reason="its node has been silent too long")


def lose_locked(locked: Iterable[LockedExecution], *, reason: str) -> int:
    """Write that those of these executions, which the caller has locked, that live are lost."""
    lost = [execution for execution in locked if execution.observed in OBSERVED.live]
    observe(
        [
            Observation(
                execution=e.id,
                before=e.observed,
                after=Observed.LOST,
                writer=Writer.ENDPOINT,
                actor="housekeeping",
                reason=reason,
                outcome=Outcome(code="lost", message=reason),
            )
            for e in lost
        ]
    )
    broker.enqueue({e.job for e in lost}, Trigger.NODE_LOST)
    after_commit(Hint.VIEW)
    return len(lost)


def lock_whole_node(node: UUID) -> list[LockedExecution]:
    """Lock what lives on *node*, then *node*: nothing comes to it until the transaction ends.

    A plan may have put something there between the two; then both are tried again.
    """
    while True:
        savepoint = transaction.savepoint()
        locked = lock_executions(live_on([node]))
        lock_nodes([node])
        if live_on([node]) <= locked.keys():
            transaction.savepoint_commit(savepoint)
            return list(locked.values())
        transaction.savepoint_rollback(savepoint)


def live_on(nodes: Iterable[UUID]) -> set[UUID]:
    """The executions on these nodes that are not over."""
    return set(_live().filter(node_id__in=list(nodes)).values_list("pk", flat=True))


def _live() -> QuerySet[Execution]:
    return Execution.objects.filter(reserved=True, observed__in=OBSERVED.live)


def reconnect(sessions: Mapping[UUID, int], /) -> None:
    """These sessions, by node, are heard of again after a silence: what waits may go there."""
    with transaction.atomic():
        back = membership.reconnect(sessions)
        journal.record(
            journal.fact("node", "connected", f"{node.name} is heard of again", node=node.pk)
            for node in back
        )
        broker.capacity_freed(node.pk for node in back)
        after_commit(Hint.VIEW)


def degraded(said: Mapping[UUID, tuple[int, str]], /) -> None:
    """These sessions say why their nodes take no new work, or that they take it again."""
    with transaction.atomic():
        changed = membership.set_degraded(said)
        journal.record(
            journal.fact("node", "degraded", membership.degraded_sentence(node), node=node.pk)
            for node in changed
        )
        broker.capacity_freed(node.pk for node in changed if not node.degraded)
        after_commit(Hint.VIEW)


def _named(frames: Iterable[Inbound]) -> set[UUID]:
    """The executions that these frames speak of."""
    texts = (
        text
        for frame in frames
        for text in (
            *(execution for execution, _ in frame.told),
            *(report.execution for report in frame.reports),
        )
    )
    return {key for text in texts if (key := execution_id(text)) is not None}


class _Batch:
    """The effects of accepted frames, worked out in memory over locked executions."""

    def __init__(self, frames: Sequence[Inbound], locked: dict[UUID, LockedExecution]) -> None:
        self.frames = frames
        self.locked = locked
        self.state = {key: e.observed for key, e in self.locked.items()}
        self.moves: list[Observation] = []
        self.told: dict[UUID, int] = {}
        self.gone: list[LockedExecution] = []
        self.outputs: list[ExecutionOutput] = []
        self.late: list[tuple[LockedExecution, Observed, Report]] = []
        self.unapproved: list[LockedExecution] = []
        self.foreign: dict[UUID, set[str]] = {}

    def write(self) -> None:
        names = _names({frame.node for frame in self.frames})
        for frame in self.frames:
            self._take_told(frame)
            for report in frame.reports:
                self._take(frame.node, names.get(frame.node, ""), report)
        freed = self._freed()
        nodes = lock_nodes({*freed, *(e.node for e in self.unapproved)})
        observe(self.moves)
        told(self.told)
        give_up([e.id for e in self.gone])
        release(freed)
        self._stop_unapproved(nodes)
        ExecutionOutput.objects.bulk_create(self.outputs, ignore_conflicts=True)
        self._record()
        self._ask_for_evaluations(freed)

    def _take_told(self, frame: Inbound) -> None:
        for text, wanted in frame.told:
            execution = self._known(text)
            if execution is None or execution.node != frame.node:
                continue
            events = compute_forwarder.told(self.state[execution.id], wanted)
            for event in events:
                self._move(
                    execution,
                    event,
                    Writer.COMPUTE_FORWARDER,
                    "",
                    "the node has taken it",
                    told_rev=frame.order_rev,
                )
            if not events:
                self.told[execution.id] = max(self.told.get(execution.id, 0), frame.order_rev)

    def _take(self, node: UUID, name: str, report: Report) -> None:
        execution = self._known(report.execution)
        if execution is None:
            return
        if execution.node != node:
            self.foreign.setdefault(node, set()).add(report.execution)
            return
        events = path(self.state[execution.id], report.happened)
        if events is None:
            self._take_late(execution, report)
            return
        if unapproved.lacks_approval(execution, events):
            self._refuse(execution, report, name)
            return
        for event in events:
            last = event == report.happened
            self._move(
                execution,
                event,
                written_by(event),
                f"node:{name}",
                report.message if last else "the node has gone on",
                _outcome(report) if last else Outcome(),
            )
        if report.stdout or report.stderr:
            self.outputs.append(
                ExecutionOutput(
                    execution_id=execution.id,
                    stdout=report.stdout.replace("\0", "\ufffd"),
                    stderr=report.stderr.replace("\0", "\ufffd"),
                    stdout_size=report.stdout_size,
                    stderr_size=report.stderr_size,
                )
            )

    def _take_late(self, execution: LockedExecution, report: Report) -> None:
        state = self.state[execution.id]
        if state not in OBSERVED.terminal:
            return
        if report.happened in _ENDS and execution.reserved:
            execution.reserved = False
            self.gone.append(execution)
        elif state in _SAYS[report.happened] or (state is Observed.LOST and not execution.reserved):
            return  # It was said before, and the acknowledgement lost.
        self.late.append((execution, state, report))

    def _refuse(self, execution: LockedExecution, report: Report, name: str) -> None:
        """End what its node began without an approval; its resources go when it has stopped."""
        moves = unapproved.refused(
            execution.id,
            self.state[execution.id],
            actor=f"node:{name}",
            releases=report.happened in _ENDS,
        )
        self._add(execution, moves)
        self.unapproved.append(execution)

    def _stop_unapproved(self, nodes: Mapping[UUID, LockedNode]) -> None:
        """Order the nodes to stop what they began without an approval and have not ended yet."""
        held = [execution for execution in self.unapproved if execution.reserved]
        newest = {execution.node: nodes[execution.node].order_rev for execution in held}
        orders = {}
        for execution in held:
            newest[execution.node] += 1
            orders[execution.id] = newest[execution.node]
        order(orders)
        reserve({}, newest)
        if orders:
            after_commit(Hint.ORDERS)
        unapproved.record(self.unapproved)

    def _move(
        self,
        execution: LockedExecution,
        event: str,
        writer: Writer,
        actor: str,
        reason: str,
        outcome: Outcome | None = None,
        *,
        told_rev: int = 0,
    ) -> None:
        before = self.state[execution.id]
        after = OBSERVED.after(before, event)
        move = Observation(
            execution=execution.id,
            before=before,
            after=after,
            writer=writer,
            actor=actor,
            reason=reason,
            releases=after in OBSERVED.terminal,
            told_rev=told_rev,
            outcome=outcome or Outcome(),
        )
        self._add(execution, [move])

    def _add(self, execution: LockedExecution, moves: Sequence[Observation]) -> None:
        self.moves += moves
        self.state[execution.id] = moves[-1].after
        execution.reserved = execution.reserved and not moves[-1].releases

    def _known(self, text: str) -> LockedExecution | None:
        key = execution_id(text)
        return self.locked.get(key) if key is not None else None

    def _freed(self) -> dict[UUID, Resources]:
        freed: dict[UUID, Resources] = {}
        ended = [self.locked[move.execution] for move in self.moves if move.releases]
        for execution in (*ended, *self.gone):
            held = freed.get(execution.node, Resources())
            freed[execution.node] = held + execution.resources
        return freed

    def _record(self) -> None:
        journal.record(
            journal.fact(
                "execution",
                "late-report",
                f"a late report ({report.happened}) of an execution that is {state}",
                job=execution.job,
                execution=execution.id,
                node=execution.node,
            )
            for execution, state, report in self.late[:100]
        )
        journal.record(
            journal.fact(
                "node",
                "foreign-report",
                "the node reported on executions of another node, which had no effect",
                node=node,
                executions=sorted(named)[:20],
            )
            for node, named in self.foreign.items()
        )
        after_commit(Hint.VIEW)

    def _ask_for_evaluations(self, freed: dict[UUID, Resources]) -> None:
        last = {move.execution: move.after for move in self.moves if move.after not in _QUIET}
        bad = {self.locked[key].job for key, after in last.items() if after in _BAD}
        rest = {self.locked[key].job for key in last} | {e.job for e in self.gone}
        broker.enqueue(bad, Trigger.EXECUTION_FAILED)
        broker.enqueue(rest - bad, Trigger.EXECUTION_UPDATE)
        if freed:
            broker.capacity_freed(freed)


_known_names: dict[UUID, str] = {}


def _names(nodes: set[UUID]) -> Mapping[UUID, str]:
    """The names of *nodes*, which never change; asked once for each."""
    missing = nodes - _known_names.keys()
    if missing:
        _known_names.update(Node.objects.filter(pk__in=missing).values_list("pk", "name"))
    return _known_names


def _outcome(report: Report) -> Outcome:
    return Outcome(
        exit_code=report.exit_code,
        code=report.code,
        message=report.message,
        hint=report.hint,
        retryable=report.retryable,
        ran=report.ran,
    )
