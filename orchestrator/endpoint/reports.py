"""What nodes say, written down: reports in batches.

Part of the Endpoint: the only writer of the observed lane besides the ComputeForwarder, whose
part (what nodes have been told) is written here too when it arrives in the same frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from django.db import transaction

from nodes import membership
from nodes.callbacks import Inbound, Verdict
from nodes.models import Node
from nodes.protocol.messages import Happened, Report
from orchestrator.lifecycle import OBSERVED, Observed, Writer, path
from orchestrator.models import Event, ExecutionOutput, journal
from orchestrator.planners import compute_forwarder, unapproved_starts
from orchestrator.planners.transitions import (
    Changes,
    LockedExecution,
    Outcome,
    execution_id,
    lock_executions,
)

from . import node_journal

_ENDS = frozenset({Happened.DECLINE, Happened.COMPLETE, Happened.FAIL, Happened.CANCEL})
#: The states that an execution is in when this has happened to it last.
_SAYS = {
    happened: frozenset(after for _, event, after in OBSERVED.edges() if event == happened)
    for happened in Happened
}


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


#: An execution, the state that it was in, and what was said of it too late.
Late = tuple[LockedExecution, Observed, Report]


class _Batch:
    """The effects of accepted frames, worked out in memory over locked executions."""

    def __init__(self, frames: Sequence[Inbound], locked: dict[UUID, LockedExecution]) -> None:
        self.frames = frames
        self.locked = locked
        self.changes = Changes()
        self.outputs: list[ExecutionOutput] = []
        self.late: dict[int, list[Late]] = {}
        self.unapproved: list[LockedExecution] = []
        self.foreign: dict[UUID, set[str]] = {}

    def write(self) -> None:
        names = _names({frame.node for frame in self.frames})
        for place, frame in enumerate(self.frames):
            self._take_told(frame)
            for report in frame.reports:
                self._take(place, frame.node, names.get(frame.node, ""), report)
        for execution in self.unapproved:
            if execution.reserved:  # What its node has begun and not ended, it is told to stop.
                self.changes.order_again(execution)
        self.changes.write()
        ExecutionOutput.objects.bulk_create(self.outputs, ignore_conflicts=True)
        self._record()

    def _take_told(self, frame: Inbound) -> None:
        for text, wanted in frame.told:
            execution = self._known(text)
            if execution is None or execution.node != frame.node:
                continue
            events = compute_forwarder.told(execution.observed, wanted)
            if events:
                self.changes.follow(
                    execution,
                    events,
                    writer=Writer.COMPUTE_FORWARDER,
                    reason="the node has taken it",
                    told_rev=frame.order_rev,
                )
            else:
                self.changes.tell(execution, frame.order_rev)

    def _take(self, place: int, node: UUID, name: str, report: Report) -> None:
        execution = self._known(report.execution)
        if execution is None:
            return
        if execution.node != node:
            self.foreign.setdefault(node, set()).add(report.execution)
            return
        actor = f"node:{name}"
        events = path(execution.observed, report.happened)
        if events is None:
            self._take_late(place, execution, report)
            return
        if unapproved_starts.lacks_approval(execution, events):
            over = report.happened in _ENDS
            unapproved_starts.refuse(self.changes, execution, actor=actor, releases=over)
            self.unapproved.append(execution)
            return
        *implied, last = events
        self.changes.follow(execution, implied, actor=actor, reason="the node has gone on")
        self.changes.follow(
            execution, [last], actor=actor, reason=report.message, outcome=_outcome(report)
        )
        # What was printed and is not kept is known by its size.
        if report.stdout_size or report.stderr_size:
            self.outputs.append(
                ExecutionOutput(
                    execution_id=execution.id,
                    stdout=report.stdout.replace("\0", "\ufffd"),
                    stderr=report.stderr.replace("\0", "\ufffd"),
                    stdout_size=report.stdout_size,
                    stderr_size=report.stderr_size,
                )
            )

    def _take_late(self, place: int, execution: LockedExecution, report: Report) -> None:
        state = execution.observed
        if state not in OBSERVED.terminal:
            return
        if report.happened in _ENDS and execution.reserved:
            self.changes.give_up(execution)
        elif state in _SAYS[report.happened] or (state is Observed.LOST and not execution.reserved):
            return  # It was said before, and the acknowledgement lost.
        self.late.setdefault(place, []).append((execution, state, report))

    def _known(self, text: str) -> LockedExecution | None:
        key = execution_id(text)
        return self.locked.get(key) if key is not None else None

    def _record(self) -> None:
        node_journal.record(
            [
                *map(_late, self.late.values()),
                *unapproved_starts.facts(self.unapproved),
                *(
                    journal.fact(
                        "node",
                        "foreign-report",
                        "the node reported on executions of another node, which had no effect",
                        node=node,
                        executions=sorted(named)[:20],
                    )
                    for node, named in self.foreign.items()
                ),
            ]
        )


def _late(found: Sequence[Late]) -> Event:
    """One row for all late reports of a frame."""
    execution, state, report = found[0]
    said = f"a late report ({report.happened}) of an execution that is {state}"
    if len(found) == 1:
        return journal.fact(
            "execution",
            "late-report",
            said,
            job=execution.job,
            execution=execution.id,
            node=execution.node,
        )
    return journal.fact(
        "node",
        "late-report",
        f"{len(found):,} late reports, which changed nothing; the first: {said}",
        node=execution.node,
        executions=[str(it.id) for it, _, _ in found[:20]],
    )


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
