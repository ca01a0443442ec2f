"""What ended executions mean for their job: finished slots, attempts, nodes to avoid.

Counting is idempotent: an execution of attempt *n* raises the attempts of its slot to *n*, so
that one which is stopped for running too long and then reported as failed counts once.  What was
cut off by what became of its node is an interruption: counted apart, it costs no attempt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator.explain.reasons import Failure, Final, How, Said, SlotFailed, SlotInterrupted
from orchestrator.lifecycle import (
    ENDED,
    Desired,
    Observed,
    StopCause,
    is_interruption,
    is_unknown,
)
from orchestrator.spec import Backoff, JobBody, OnLost, Retry

from .bad_nodes import BadNodes, remembered, with_failure, with_refusal
from .policy import policy_of
from .slot_set import has, with_slots
from .world import TERMINAL, ExecutionView, Progress, World

#: The agent enforces the timeout of an execution; the scheduler waits this much longer.
OVERRUN = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class SlotHistory:
    """What has been accounted for.

    ``settle`` are executions that ``progress`` now includes.  ``held`` are lost ones whose nodes
    may still run them.  ``overran`` are live ones that have used up their attempt.
    """

    progress: Progress
    settle: tuple[str, ...] = ()
    held: tuple[ExecutionView, ...] = ()
    overran: frozenset[str] = frozenset()

    def given_up(self) -> SlotHistory:
        """The same when nobody waits for what is held any longer."""
        outcomes = Counter(self.progress.outcomes)
        outcomes.update(str(it.observed) for it in self.held)
        return SlotHistory(
            replace(self.progress, outcomes=dict(outcomes)),
            (*self.settle, *(it.id for it in self.held)),
            overran=self.overran,
        )


def slot_history(world: World) -> SlotHistory:
    """The progress of the job after everything that has ended."""
    job = world.job
    counting = _Counting(world, job.progress.carried(job.round, job.submitted_at))
    limits = None if job.state in ENDED else Limits.of(world)
    ended, late = [], []
    for execution in world.executions:
        if execution.observed in TERMINAL:
            ended.append(execution)
        elif limits and is_current(world, execution):
            at = limits.end_of(execution)
            if execution.cause == StopCause.OVERRAN or (
                execution.desired is not Desired.STOPPED and at is not None and at <= world.now
            ):
                late.append(execution)
    # What has completed comes first: of its slot nothing else counts then.
    for execution in sorted(ended, key=lambda it: it.observed is not Observed.COMPLETED):
        counting.close(execution)
    for execution in late:
        counting.overrun(execution)
    return counting.balance()


def is_current(world: World, execution: ExecutionView) -> bool:
    """Whether it runs what the job wants now: its task, in this round."""
    job = world.job
    return execution.round == job.round and execution.generation == job.generation


@dataclass(frozen=True, slots=True)
class Limits:
    """How long executions may take until the scheduler waits for their agent no longer."""

    by_version: Mapping[int, timedelta | None]
    newest: timedelta | None

    @classmethod
    def of(cls, world: World) -> Limits | None:
        """Those of the job's versions; None where none has any."""
        by_version = {version: _limit(spec) for version, spec in world.specs.items()}
        limits = cls(by_version, _limit(world.job.spec))
        return limits if any((limits.newest, *by_version.values())) else None

    def end_of(self, execution: ExecutionView) -> datetime | None:
        limit = self.by_version.get(execution.version, self.newest)
        if limit is None or execution.started_at is None:
            return None
        return execution.started_at + limit


def _limit(spec: JobBody) -> timedelta | None:
    most = spec.timeouts.execution
    return None if most is None else timedelta(seconds=most + spec.grace) + OVERRUN


def delay(retry: Retry, attempts: int) -> timedelta:
    """How long a slot waits after its *attempts*-th failure."""
    factor = {
        Backoff.CONSTANT: 1.0,
        Backoff.LINEAR: float(attempts),
        Backoff.EXPONENTIAL: 2.0 ** (attempts - 1),
    }[retry.backoff]
    return timedelta(seconds=min(retry.delay * factor, max(retry.max_delay, retry.delay)))


def _how(execution: ExecutionView) -> How:
    if execution.observed is Observed.FAILED:
        return How.FAILED
    is_undelivered = execution.observed in TERMINAL and execution.cause != StopCause.OVERRAN
    return How.UNDELIVERED if is_undelivered else How.OVERRAN


@dataclass(slots=True)
class _Counting:
    """Progress while it is being written."""

    world: World
    before: Progress
    completed: set[int] = field(default_factory=set)
    settled: list[str] = field(default_factory=list)
    held: list[ExecutionView] = field(default_factory=list)
    overran: set[str] = field(default_factory=set)
    refused: dict[str, datetime] = field(default_factory=dict)
    attempts: dict[int, int] = field(init=False)
    failed_attempts: dict[int, int] = field(init=False)
    interruptions: dict[int, int] = field(init=False)
    retry_at: dict[int, datetime] = field(init=False)
    bad_nodes: BadNodes = field(init=False)
    outcomes: dict[str, int] = field(init=False)
    failed: Failure | None = field(init=False)
    last_failure: Failure | None = field(init=False)

    def __post_init__(self) -> None:
        progress, now = self.before, self.world.now
        self.attempts = dict(progress.attempts)
        self.failed_attempts = dict(progress.failed_attempts)
        self.interruptions = dict(progress.interruptions)
        count = self.world.job.count
        later = progress.retry_at.items()
        self.retry_at = {slot: at for slot, at in later if at > now and slot < count}
        self.bad_nodes = progress.bad_nodes
        self.outcomes = dict(progress.outcomes)
        self.failed, self.last_failure = progress.failed, progress.last_failure

    def close(self, execution: ExecutionView) -> None:
        """Account for an execution that has ended, unless its node may still run it."""
        is_open = is_current(self.world, execution) and not self._is_done(execution.slot)
        matters = is_open and self.world.job.state not in ENDED
        cut_off = is_interruption(execution.observed, execution.cause, execution.code)
        may_return = cut_off and execution.observed is Observed.LOST and execution.reserved
        may_return = may_return and execution.slot < self.world.job.count
        if matters and may_return and self.world.job.spec.on_lost is OnLost.WAIT:
            self.held.append(execution)
            return
        self.settled.append(execution.id)
        observed = str(execution.observed)
        self.outcomes[observed] = self.outcomes.get(observed, 0) + 1
        completes = policy_of(self.world.job.spec.type).slots_complete
        if is_open and completes and execution.observed is Observed.COMPLETED:
            self.completed.add(execution.slot)  # Also where the job had been given up by then.
        if not matters:
            return
        if cut_off:
            self._interrupted(execution)
            return
        match execution.observed:
            case Observed.FAILED if not is_unknown(execution.observed, execution.code):
                self._attempted(execution, retryable=execution.retryable)
            case Observed.CANCELLED if execution.cause == StopCause.OVERRAN:
                self._attempted(execution, retryable=True)
            case Observed.CANCELLED if not execution.retryable:
                self._attempted(execution, retryable=False)
            case Observed.ASK_FOR_BID_REJECTED:
                ended = execution.ended_at or self.world.now
                self.refused[execution.node] = max(ended, self.refused.get(execution.node, ended))

    def _is_done(self, slot: int) -> bool:
        return slot in self.completed or has(self.before.completed, slot)

    def overrun(self, execution: ExecutionView) -> None:
        self.overran.add(execution.id)
        if not self._is_done(execution.slot):
            self._attempted(execution, retryable=True)

    def _interrupted(self, execution: ExecutionView) -> None:
        slot, spec = execution.slot, self.world.job.spec
        if not self._count(execution):
            return
        ended = execution.ended_at or self.world.now
        if execution.started_at is not None or execution.observed is Observed.FAILED:
            self.bad_nodes = with_failure(self.bad_nodes, execution.node, ended)
        if slot >= self.world.job.count:
            return
        self.interruptions[slot] = number = self.interruptions.get(slot, 0) + 1
        most, final = spec.retry.max_interruptions, None
        if spec.on_lost is OnLost.FAIL:
            final = Final.ON_LOST
        elif number > most:
            final = Final.INTERRUPTIONS
        interrupted = SlotInterrupted(
            slot=slot,
            node=self._name(execution.node),
            number=number,
            most=most,
            how=How.LOST if execution.observed is Observed.LOST else How.INTERRUPTED,
            final=final,
            message=execution.message,
        )
        if final is not None:
            self.failed = self.failed or interrupted
        elif execution.observed is Observed.FAILED and number > 1:  # Its task may be what does it.
            self._pause(interrupted, ended, min(number, 100))  # As many as there are attempts.

    def _count(self, execution: ExecutionView) -> bool:
        """Count the attempt that it was; False when that was done before."""
        if execution.attempt <= self.attempts.get(execution.slot, 0):
            return False
        self.attempts[execution.slot] = execution.attempt
        return True

    def _attempted(self, execution: ExecutionView, *, retryable: bool) -> None:
        slot = execution.slot
        if not self._count(execution):
            return
        ended = execution.ended_at or self.world.now
        self.bad_nodes = with_failure(self.bad_nodes, execution.node, ended)
        if slot >= self.world.job.count:
            return
        self.failed_attempts[slot] = times = self.failed_attempts.get(slot, 0) + 1
        failure = self._failure(execution, times, retryable=retryable)
        if failure.final is not None:
            self.failed = self.failed or failure
            return
        self._pause(failure, ended, times)

    def _pause(self, failure: SlotFailed | SlotInterrupted, ended: datetime, times: int) -> None:
        at = ended + delay(self.world.job.spec.retry, times)
        if at <= self.world.now:  # It may have ended long ago, on a node that was away.
            return
        self.retry_at[failure.slot] = at
        last = self._last_failure()
        # That of the slot which waits longest, so that there is one as long as any waits, if no
        # lower count takes that slot away.
        if last is None or isinstance(last, Said) or at >= self.retry_at[last.slot]:
            self.last_failure = failure

    def _failure(self, execution: ExecutionView, times: int, *, retryable: bool) -> SlotFailed:
        retry = self.world.job.spec.retry
        final = (
            Final.NO_USE if not retryable else Final.ATTEMPTS if times >= retry.attempts else None
        )
        return SlotFailed(
            slot=execution.slot,
            node=self._name(execution.node),
            attempt=times,
            attempts=retry.attempts,
            how=_how(execution),
            final=final,
            exit_code=execution.exit_code,
            code=execution.code,
            message=execution.message,
        )

    def _name(self, node: str) -> str:
        row = self.world.nodes.index.get(node)
        return "a node that is gone" if row is None else self.world.nodes.names[row]

    def _last_failure(self) -> Failure | None:
        """How the slot failed that waits longest to be tried again, if any waits."""
        last = self.last_failure
        if isinstance(last, SlotFailed | SlotInterrupted):
            return last if last.slot in self.retry_at else None
        return last if self.retry_at else None

    def balance(self) -> SlotHistory:
        before, now = self.before, self.world.now
        bad_nodes = self.bad_nodes
        for node, at in self.refused.items():
            bad_nodes = with_refusal(bad_nodes, node, at)
        for slot in self.completed:
            for kept in (self.attempts, self.failed_attempts, self.interruptions, self.retry_at):
                kept.pop(slot, None)
        progress = replace(
            before,
            completed=with_slots(before.completed, self.completed),
            attempts=self.attempts,
            failed_attempts=self.failed_attempts,
            interruptions=self.interruptions,
            retry_at=self.retry_at,
            bad_nodes=remembered(bad_nodes, now),
            outcomes=self.outcomes,
            failed=self.failed,
            last_failure=self._last_failure(),
        )
        return SlotHistory(progress, tuple(self.settled), tuple(self.held), frozenset(self.overran))
