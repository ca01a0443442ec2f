"""The shapes of the answers, for the OpenAPI document; a test holds `shapes` to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from ninja import Schema
from pydantic import ConfigDict, create_model


class _Shape(Schema):
    model_config = ConfigDict(extra="forbid")


class Named(_Shape):
    id: UUID
    name: str


class Resources(_Shape):
    """cpu in millicores, memory and disk in bytes, gpu in devices."""

    cpu: int
    memory: int
    disk: int
    gpu: int


class SpecWarning(_Shape):
    """What is odd about a specification and no mistake; `path` is empty for all of it."""

    path: str
    message: str
    hint: str


class Submitted(_Shape):
    """What came of a submission.  When not `changed`, the same specification was there.

    `rerun` says that the job had ended and that every slot runs again.
    """

    id: UUID
    name: str
    version: int
    state: str
    created: bool
    changed: bool
    rerun: bool
    sentence: str
    warnings: list[SpecWarning]


class SubmittedMany(_Shape):
    items: list[Submitted]


class Valid(_Shape):
    """`spec` is the specification as it is understood, with every default."""

    valid: bool
    spec: dict[str, Any]
    warnings: list[SpecWarning]


class Job(_Shape):
    id: UUID
    name: str
    type: str
    state: str
    sentence: str
    reason: str
    priority: int
    count: int
    version: int
    round: int
    labels: dict[str, str]
    tally: dict[str, int]
    stop_requested: bool
    stop_reason: str
    rev: int
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None


class JobInFull(Job):
    spec: dict[str, Any]


class Version(_Shape):
    number: int
    digest: str
    actor: str
    created_at: datetime
    spec: dict[str, Any]


class Execution(_Shape):
    id: UUID
    job: Named
    node: Named
    slot: int
    attempt: int
    version: int
    round: int
    desired: str
    observed: str
    sentence: str
    evaluation: int | None
    resources: Resources
    exit_code: int | None
    code: str
    message: str
    hint: str
    retryable: bool
    ran: float | None
    rev: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class Transition(_Shape):
    rev: int
    lane: str
    before: str
    after: str
    writer: str
    actor: str
    reason: str
    at: datetime


class Output(_Shape):
    """The last bytes of what it printed, and the sizes of the whole streams."""

    stdout: str
    stderr: str
    stdout_size: int
    stderr_size: int


class ExecutionInFull(Execution):
    history: list[Transition]
    output: Output | None


class Node(_Shape):
    id: UUID
    name: str
    sentence: str
    approval: str
    connection: str
    connection_since: datetime
    eligible: bool
    draining: bool
    quarantined: str
    degraded: str
    labels: dict[str, str]
    attributes: dict[str, str]
    capacity: Resources
    allocated: Resources
    running: int
    load: float
    seen_at: datetime | None
    rev: int
    created_at: datetime


class JoinToken(_Shape):
    """The token is never shown again."""

    token: str


class Enrolled(_Shape):
    """The id of the node, and the credential that it signs in with, never shown again."""

    node: UUID
    credential: str
    name: str
    approval: str


class Evaluation(_Shape):
    id: int
    job: Named
    type: str
    priority: int
    state: str
    triggers: dict[str, Any]
    delivery: int
    worker: str
    outcome: str
    error: str
    waited_since: datetime | None
    leased_at: datetime
    finished_at: datetime | None


class EvaluationInFull(Evaluation):
    """`record` says what was looked at when something could not be placed."""

    record: dict[str, Any] | None


class Event(_Shape):
    id: int
    at: datetime
    topic: str
    what: str
    actor: str
    message: str
    job: UUID | None
    execution: UUID | None
    node: UUID | None
    data: dict[str, Any]


class Events(_Shape):
    """`cursor` leads on from here, also when nothing has happened yet."""

    items: list[Event]
    cursor: str


class Queue(_Shape):
    """The queue of jobs that wait for evaluation, and whether it is paused."""

    paused: bool
    paused_reason: str
    paused_by: str
    paused_at: datetime | None
    stats: dict[str, Any]


class Status(_Shape):
    """The cluster on one screen."""

    ready: bool
    missing: str
    warning: str
    jobs: dict[str, int]
    nodes: dict[str, int]
    capacity: Resources
    allocated: Resources
    queue: Queue


def page_of(shape: type[Schema]) -> type[Schema]:
    """A page of *shape*; `next_cursor` is null on the last one."""
    return create_model(
        f"{shape.__name__}Page",
        __base__=_Shape,
        items=(list[shape], ...),  # type: ignore[valid-type]
        next_cursor=(str | None, ...),
    )


def body(*required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI description of a body with these *properties*, some of them *required*."""
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False}
    schema |= {"properties": properties, "required": list(required)}
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"content": content, "required": bool(required)}}
