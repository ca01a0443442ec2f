"""The states of jobs, executions and evaluations, each table in one place.

No other module names a transition.  An execution lives in two lanes: *desired* is what the
scheduler wants of it, *observed* is what is known of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from nodes.protocol.lifecycle import IllegalTransition, Lifecycle
from nodes.protocol.messages import UNKNOWN_OUTCOME, Happened, Want

__all__ = [
    "AFTER_APPROVAL",
    "APPROVED",
    "DESIRED",
    "JOB",
    "OBSERVED",
    "WRITERS",
    "Desired",
    "EvaluationState",
    "IllegalTransition",
    "JobState",
    "Lifecycle",
    "Observed",
    "StopCause",
    "Trigger",
    "Writer",
    "is_interruption",
    "need_approval",
    "path",
    "want",
    "written_by",
]


class JobType(StrEnum):
    BATCH = "batch"
    SERVICE = "service"
    OPS = "ops"
    DAEMON = "daemon"


class Desired(StrEnum):
    """What the scheduler wants of an execution."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPED = "stopped"


class Observed(StrEnum):
    """What is known of an execution."""

    NEW = "new"
    ASK_FOR_BID = "ask_for_bid"
    ASK_FOR_BID_ACCEPTED = "ask_for_bid_accepted"
    ASK_FOR_BID_REJECTED = "ask_for_bid_rejected"
    BID_ACCEPTED = "bid_accepted"
    BID_REJECTED = "bid_rejected"
    PREPARING = "preparing"
    RUNNING = "running"
    PUBLISHING = "publishing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


class StopCause(StrEnum):
    """Why somebody ended an execution that did not end by itself; the first cause stays."""

    JOB_STOPPED = "job_stopped"
    JOB_COMPLETED = "job_completed"
    JOB_FAILED = "job_failed"
    JOB_TIMED_OUT = "job_timed_out"
    NEWER_VERSION = "newer_version"
    RERUN = "rerun"
    SCALED_IN = "scaled_in"
    SLOT_COMPLETED = "slot_completed"
    OVERRAN = "overran"
    SURPLUS_BID = "surplus_bid"
    NODE_NOT_READY = "node_not_ready"
    CONSTRAINTS_UNMET = "constraints_unmet"
    NODE_LOST = "node_lost"
    NODE_REJECTED = "node_rejected"
    FORGOTTEN_BY_NODE = "forgotten_by_node"
    BID_LOST = "bid_lost"
    UNDELIVERABLE = "undeliverable"
    NOT_APPROVED = "not_approved"
    EARLIER_RELEASE = "earlier_release"


class Writer(StrEnum):
    """Who may write a transition."""

    STATE_UPDATER = "state-updater"
    COMPUTE_FORWARDER = "compute-forwarder"
    ENDPOINT = "endpoint"


DESIRED: Lifecycle[Desired] = Lifecycle(
    initial=Desired.PENDING,
    table={
        Desired.PENDING: {"approve": Desired.RUNNING, "stop": Desired.STOPPED},
        Desired.RUNNING: {"stop": Desired.STOPPED},
        Desired.STOPPED: {},
    },
)

_ENDS = {"cancel": Observed.CANCELLED, "lose": Observed.LOST}

OBSERVED: Lifecycle[Observed] = Lifecycle(
    initial=Observed.NEW,
    table={
        Observed.NEW: {
            "ask": Observed.ASK_FOR_BID,
            "accept": Observed.BID_ACCEPTED,
            **_ENDS,
        },
        Observed.ASK_FOR_BID: {
            "bid": Observed.ASK_FOR_BID_ACCEPTED,
            "decline": Observed.ASK_FOR_BID_REJECTED,
            **_ENDS,
        },
        Observed.ASK_FOR_BID_ACCEPTED: {
            "accept": Observed.BID_ACCEPTED,
            "reject": Observed.BID_REJECTED,
            "decline": Observed.ASK_FOR_BID_REJECTED,
            **_ENDS,
        },
        Observed.BID_ACCEPTED: {
            "prepare": Observed.PREPARING,
            "start": Observed.RUNNING,
            "decline": Observed.ASK_FOR_BID_REJECTED,
            "fail": Observed.FAILED,
            **_ENDS,
        },
        Observed.PREPARING: {"start": Observed.RUNNING, "fail": Observed.FAILED, **_ENDS},
        Observed.RUNNING: {
            "publish": Observed.PUBLISHING,
            "complete": Observed.COMPLETED,
            "fail": Observed.FAILED,
            **_ENDS,
        },
        Observed.PUBLISHING: {
            "complete": Observed.COMPLETED,
            "fail": Observed.FAILED,
            **_ENDS,
        },
        Observed.ASK_FOR_BID_REJECTED: {},
        Observed.BID_REJECTED: {},
        Observed.COMPLETED: {},
        Observed.FAILED: {},
        Observed.CANCELLED: {},
        Observed.LOST: {},
    },
)

#: Who may cause which event.  The trigger in the database enforces it, the dashboard shows it.
WRITERS: Mapping[str, frozenset[Writer]] = {
    "ask": frozenset({Writer.COMPUTE_FORWARDER}),
    "accept": frozenset({Writer.COMPUTE_FORWARDER}),
    "reject": frozenset({Writer.COMPUTE_FORWARDER}),
    "bid": frozenset({Writer.ENDPOINT}),
    "decline": frozenset({Writer.ENDPOINT}),
    "prepare": frozenset({Writer.ENDPOINT}),
    "start": frozenset({Writer.ENDPOINT}),
    "publish": frozenset({Writer.ENDPOINT}),
    "complete": frozenset({Writer.ENDPOINT}),
    "fail": frozenset({Writer.ENDPOINT}),
    "cancel": frozenset({Writer.ENDPOINT, Writer.COMPUTE_FORWARDER}),
    "lose": frozenset({Writer.ENDPOINT}),
    "approve": frozenset({Writer.STATE_UPDATER}),
    # A terminal observation closes the desired lane in the same write, whoever makes it.
    "stop": frozenset({Writer.STATE_UPDATER}),
}

#: What only follows an approval: the scheduler has taken *desired* out of *pending*.
AFTER_APPROVAL = frozenset({"accept"})


def _approved() -> frozenset[Observed]:
    reached = {after for _, event, after in OBSERVED.edges() if event in AFTER_APPROVAL}
    while more := {after for before, _, after in OBSERVED.edges() if before in reached} - reached:
        reached |= more
    return frozenset(reached) & OBSERVED.live


#: The live states that nothing is in without an approval.
APPROVED = _approved()

#: The states in which no node can have been told to run it and have said so.
NOT_BEGUN = frozenset({Observed.NEW, Observed.ASK_FOR_BID, Observed.ASK_FOR_BID_ACCEPTED})

MEANING: Mapping[Observed, str] = {
    Observed.NEW: "decided; nobody has been told yet",
    Observed.ASK_FOR_BID: "the node has been asked for a bid",
    Observed.ASK_FOR_BID_ACCEPTED: "the node bids and holds the resources",
    Observed.ASK_FOR_BID_REJECTED: "the node declined it",
    Observed.BID_ACCEPTED: "the node has been told to run it",
    Observed.BID_REJECTED: "its bid was not needed",
    Observed.PREPARING: "inputs are being fetched",
    Observed.RUNNING: "the task runs",
    Observed.PUBLISHING: "the task ended well and its results are being published",
    Observed.COMPLETED: "ended well",
    Observed.FAILED: "ended badly",
    Observed.CANCELLED: "called off before it ended by itself",
    Observed.LOST: "its node does not answer for it any longer",
}


#: The causes that cut off what was to run on.
_CUT_OFF = frozenset({StopCause.NODE_LOST, StopCause.NODE_REJECTED, StopCause.FORGOTTEN_BY_NODE})


def is_interruption(observed: Observed, cause: str, code: str) -> bool:
    """Whether an execution that ended so was cut off by what became of its node.

    It was to run, and perhaps did; how it would have ended nobody knows.  Not so what had been
    told to stop before, or had not been approved.  *cause* is a `StopCause`, or empty.
    """
    if cause and cause not in _CUT_OFF:
        return False
    return observed is Observed.LOST or is_unknown(observed, code)


def is_unknown(observed: Observed, code: str) -> bool:
    """Whether its node cannot say how it ended."""
    return observed is Observed.FAILED and code == UNKNOWN_OUTCOME


class JobState(StrEnum):
    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


_OUTCOMES = {
    "complete": JobState.COMPLETED,
    "fail": JobState.FAILED,
    "stop": JobState.STOPPED,
}

JOB: Lifecycle[JobState] = Lifecycle(
    initial=JobState.PENDING,
    table={
        JobState.PENDING: {"queue": JobState.QUEUED, "run": JobState.RUNNING, **_OUTCOMES},
        JobState.QUEUED: {"run": JobState.RUNNING, **_OUTCOMES},
        JobState.RUNNING: {"queue": JobState.QUEUED, **_OUTCOMES},
        # Ended, until somebody wants something again.
        JobState.COMPLETED: {"renew": JobState.PENDING},
        JobState.FAILED: {"renew": JobState.PENDING},
        JobState.STOPPED: {"renew": JobState.PENDING},
    },
)

#: A job in one of these wants nothing more, until it is renewed.
ENDED = frozenset(_OUTCOMES.values())


class EvaluationState(StrEnum):
    """How an evaluation ended.  One that goes on is none yet, but a job of the queue at work."""

    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Trigger(StrEnum):
    """Why a job asks for an evaluation."""

    JOB_SUBMIT = "job-submit"
    JOB_UPDATE = "job-update"
    JOB_STOP = "job-stop"
    JOB_RERUN = "job-rerun"
    JOB_SCALE = "job-scale"
    EXECUTION_UPDATE = "execution-update"
    EXECUTION_FAILED = "execution-failed"
    EXECUTION_TIMEOUT = "execution-timeout"
    JOB_TIMEOUT = "job-timeout"
    QUEUE_TIMEOUT = "queue-timeout"
    NODE_JOIN = "node-join"
    NODE_CHANGE = "node-change"
    NODE_LOST = "node-lost"
    NODE_DRAIN = "node-drain"
    CAPACITY = "capacity"
    RETRY = "retry"
    SCHEDULE = "schedule"
    OPERATOR = "operator"


def want(desired: Desired, observed: Observed, *, reserved: bool) -> Want | None:
    """What its node must be told about an execution in this state; None when nothing.

    What is over here and still *reserved* may go on there.  A node that was lost is told so when
    it says hello.
    """
    if observed in OBSERVED.terminal:
        return Want.STOP if reserved and observed is not Observed.LOST else None
    if desired is Desired.STOPPED:
        rejected = observed is Observed.ASK_FOR_BID_ACCEPTED
        return Want.REJECT if rejected else Want.STOP
    return Want.BID if desired is Desired.PENDING else Want.RUN


#: What the compute forwarder may write when a node has taken an order.
TOLD: Mapping[Want, str] = {
    Want.BID: "ask",
    Want.RUN: "accept",
    Want.REJECT: "reject",
}


def written_by(event: str) -> Writer:
    """Who writes *event* when it follows from what a node says or holds."""
    return Writer.COMPUTE_FORWARDER if event in TOLD.values() else Writer.ENDPOINT


def need_approval(events: Iterable[str]) -> bool:
    """Whether *events* can only have happened rightly to what the scheduler has approved."""
    return not AFTER_APPROVAL.isdisjoint(events)


_IMPLIED = ("ask", "bid", "accept", "start")


def path(observed: Observed, event: Happened | str) -> tuple[str, ...] | None:
    """The events that lead from *observed* through *event*, implied ones first.

    A node that says "started" has been told to run it, even if its acknowledgement was lost with
    the link: the implied events are written too, so the history stays complete.  None when
    *event* cannot follow from here: a repeat, or a late report.
    """
    frontier: list[tuple[Observed, tuple[str, ...]]] = [(observed, ())]
    seen = {observed}
    while frontier:
        state, events = frontier.pop(0)
        if event in OBSERVED.table[state]:
            return (*events, str(event))
        for implied in _IMPLIED:
            after = OBSERVED.table[state].get(implied)
            if after is not None and after not in seen:
                seen.add(after)
                frontier.append((after, (*events, implied)))
    return None
