"""Executions, their transitions and output, and what lists of them are asked with."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, field

from orchestrator.lifecycle import Desired, Observed, StopCause, Writer

from .answers import Answer, Named, NamedJob, Resources
from .requests import PagingInNamespace

#: Of either lane; nothing is before the first.
_State = Annotated[
    str, Meta(extra_json_schema={"enum": ["", *dict.fromkeys(map(str, (*Desired, *Observed)))]})
]

_Cause = Annotated[str, Meta(extra_json_schema={"enum": ["", *map(str, StopCause)]})]


class Execution(Answer):
    """`ran` is in seconds; `code`, `message` and `hint` say why it did not end well.

    `stop_cause` says why somebody stopped it, `stop_detail` what only a sentence can add to that;
    both are empty when it ended by itself.
    """

    id: UUID
    job: NamedJob
    node: Named
    slot: int
    attempt: int
    version: int
    round: int
    desired: Desired
    observed: Observed
    sentence: str
    evaluation_id: int | None = field(name="evaluation")
    resources: Resources
    exit_code: int | None
    code: str
    message: str
    hint: str
    retryable: bool
    stop_cause: _Cause
    stop_detail: str
    ran: float | None
    rev: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class Transition(Answer):
    """`cause` is the `stop_cause` that it has set; `reason` says all of it in words."""

    rev: int
    lane: Literal["desired", "observed"]
    before: _State
    after: _State
    writer: Writer
    actor: str
    cause: _Cause
    reason: str
    at: datetime


class Output(Answer):
    """The last bytes of what it printed, and the sizes of the whole streams."""

    stdout: str
    stderr: str
    stdout_size: int
    stderr_size: int


class ExecutionInFull(Execution):
    history: list[Transition]
    output: Output | None


class Executions(PagingInNamespace):
    observed: tuple[Observed, ...] = ()
    node: Annotated[str, Meta(max_length=63, description="name, id or beginning of an id")] = ""


class JobExecutions(PagingInNamespace):
    observed: tuple[Observed, ...] = ()
    slot: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
