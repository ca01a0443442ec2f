"""Jobs and their versions, and what is sent to submit, list and stop them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta, field

from orchestrator.lifecycle import JobState, JobType

from .answers import JOB_SPEC, Answer, Warned
from .requests import MOST, Body, PagingInNamespace, Reason

_Spec = Annotated[dict[str, Any], Meta(extra_json_schema={"$ref": JOB_SPEC})]


class Submitted(Answer):
    """What came of a submission.  When not `changed`, the same specification was there.

    `rerun` says that every slot runs again, also those that have completed.
    """

    id: UUID
    name: str
    namespace_id: str = field(name="namespace")
    version: int
    state: JobState
    created: bool
    changed: bool
    rerun: bool
    sentence: str
    warnings: list[Warned]


class SubmittedMany(Answer):
    items: list[Submitted]


class Valid(Answer):
    """`spec` is the specification as it is understood, with every default."""

    valid: bool
    spec: _Spec
    warnings: list[Warned]


class Job(Answer):
    """`tally` counts its executions by what is observed of them; of the completed ones, its slots.

    `reasons` are why it is as it is: what each `is`, its `cause`, its numbers and times.
    """

    id: UUID
    name: str
    namespace_id: str = field(name="namespace")
    type: JobType
    state: JobState
    sentence: str
    reason: str
    reasons: list[dict[str, Any]]
    priority: int
    count: int
    version: int
    round: int
    labels: dict[str, str]
    tally: dict[str, int]
    stop_requested: bool
    stop_reason: str
    stopped_by: str
    rev: int
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None


class NotKept(Answer):
    """How many executions and evaluations that ended before an instant are no longer kept.

    And before when its events are not; `sentence` says it for people.
    """

    executions: int
    evaluations: int
    ended_before: datetime | None
    events_before: datetime | None
    sentence: str


class JobInFull(Job):
    """`not_kept` is null where all of it is there."""

    spec: _Spec
    not_kept: NotKept | None


class Version(Answer):
    number: int
    digest: str
    actor: str
    created_at: datetime
    spec: _Spec


class Batch(Body):
    """Each job is read by the same reader as a single one: its text is kept until then."""

    jobs: Annotated[
        list[Annotated[msgspec.Raw, Meta(extra_json_schema={"$ref": JOB_SPEC})]],
        Meta(min_length=1, max_length=MOST),
    ]
    rerun: bool = False


class Stop(Body):
    reason: Reason = ""


class Jobs(PagingInNamespace):
    state: tuple[JobState, ...] = ()
    type: tuple[JobType, ...] = ()
    name: Annotated[
        str, Meta(max_length=63, pattern="^[^\0]*$", description="what the name begins with")
    ] = ""
