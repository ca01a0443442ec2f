"""Why an execution was stopped, as a sentence of its cause and a detail, made here alone.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.lifecycle import StopCause

from .formatting import person

WORDS: Mapping[StopCause, str] = {
    StopCause.JOB_STOPPED: "the job was stopped",
    StopCause.JOB_COMPLETED: "the job has completed",
    StopCause.JOB_FAILED: "the job failed",
    StopCause.JOB_TIMED_OUT: "the job took too long",
    StopCause.NEWER_VERSION: "the job has a newer version",
    StopCause.RERUN: "the job was run again",
    StopCause.SCALED_IN: "the job needs fewer slots",
    StopCause.SLOT_COMPLETED: "its slot has completed",
    StopCause.OVERRAN: "it ran longer than the job allows",
    StopCause.SURPLUS_BID: "its bid was not needed",
    StopCause.NODE_NOT_READY: "its node takes no new work any longer",
    StopCause.CONSTRAINTS_UNMET: "its node is not as the job wants it any longer",
    StopCause.NODE_LOST: "its node has been silent too long",
    StopCause.NODE_REJECTED: "its node was rejected",
    StopCause.FORGOTTEN_BY_NODE: "its node came back without it",
    StopCause.BID_LOST: "it was lost before anybody had approved it",
    StopCause.UNDELIVERABLE: "its node could not be told",
    StopCause.NOT_APPROVED: "its node began it before anybody had approved it",
    StopCause.EARLIER_RELEASE: "an earlier release told it to stop",
}


def sentence(cause: str, detail: str = "") -> str:
    """Why it was stopped; without a cause *detail* is all that is known.

    Of a node that was rejected the detail is the actor who did it.
    """
    if not cause:
        return detail
    said = WORDS[StopCause(cause)] if cause in WORDS else cause.replace("_", " ")
    if not detail:
        return said
    if cause == StopCause.NODE_REJECTED:
        return f"{said} by {person(detail)}"
    return f"{said}: {detail}"
