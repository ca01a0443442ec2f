"""What people want of a job, and what a submission makes of it: pure, so that it can be tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator import spec
from orchestrator.lifecycle import ENDED, JobState

from .policy import policy_of


@dataclass(frozen=True, slots=True)
class Intent:
    """What is wanted of a job that is in *state*.

    ``digest`` and ``generation`` are those of its version (see ``spec.storage``).  Executions of
    another generation or an earlier ``round`` run something else than what is wanted.
    """

    state: JobState
    version: int
    digest: str
    generation: str
    round: int
    count: int
    priority: int
    labels: Mapping[str, str]
    stop_requested: bool = False


@dataclass(frozen=True, slots=True)
class Submission:
    """What becomes of a job: its intent, and how that differs from before.

    ``renewed`` says that a job which had ended wants something again, or that every slot does:
    its time begins anew.  ``change`` says in words what differs beside the version.
    """

    intent: Intent
    is_new_version: bool = False
    renewed: bool = False
    change: str = ""

    @property
    def is_change(self) -> bool:
        return self.is_new_version or self.renewed or bool(self.change)


def submit(now: Intent, wanted: spec.JobSpec, *, rerun: bool = False) -> Submission:
    """Want what *wanted* says from now on; with *rerun* every slot of a job that has ended again.

    Another task runs everything again, and so does a job that was stopped: a batch has run when
    all its slots have run the same.  All else leaves what runs as it is.
    """
    _, digest, generation = spec.stored(wanted)
    has_ended = now.state in ENDED
    is_stopped = now.state is JobState.STOPPED or (now.stop_requested and not has_ended)
    is_new_version = digest != now.digest
    has_another_task = generation != now.generation and policy_of(wanted.type).slots_complete
    again = has_another_task or is_stopped or (rerun and has_ended)
    if now.state is JobState.FAILED:
        revived = is_new_version or wanted.count != now.count
    else:
        revived = has_ended and wanted.count > now.count
    then = replace(
        now,
        version=now.version + is_new_version,
        digest=digest,
        generation=generation,
        round=now.round + again,
        count=wanted.count,
        priority=wanted.priority,
        labels=wanted.labels,
        stop_requested=False,
    )
    return Submission(then, is_new_version, again or revived, _change(now, wanted))


def _change(now: Intent, wanted: spec.JobSpec) -> str:
    said = [
        f"{name} from {before} to {after}"
        for name, before, after in (
            ("count", now.count, wanted.count),
            ("priority", now.priority, wanted.priority),
        )
        if before != after
    ]
    if dict(now.labels) != dict(wanted.labels):
        said.append("other labels")
    return ", ".join(said)
