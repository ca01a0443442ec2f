"""What is sent and answered: each struct reads or writes the JSON, and describes it in OpenAPI.

Answers are a promise: fields are added, never changed.  A field is called as the attribute of the
row that it shows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta, Struct, field

from nodes.membership.joining import NAME
from nodes.protocol.lifecycle import Approval, Connection
from orchestrator.broker.statistics import BrokerStats
from orchestrator.lifecycle import (
    Desired,
    EvaluationState,
    JobState,
    JobType,
    Observed,
    Writer,
)

#: Of one request; a list is read in pages of at most so many.
MOST = 500
#: Where the document keeps the schema of a job file.
JOB_SPEC = "#/components/schemas/JobSpec"

_Spec = Annotated[dict[str, Any], Meta(extra_json_schema={"$ref": JOB_SPEC})]
_Reason = Annotated[str, Meta(max_length=500, pattern="^[^\0]*$")]
_Amount = Annotated[int, Meta(ge=0)]
#: Of either lane; nothing is before the first.
_State = Annotated[
    str, Meta(extra_json_schema={"enum": ["", *dict.fromkeys(map(str, (*Desired, *Observed)))]})
]

# --- answers ---------------------------------------------------------------------------------

A = TypeVar("A", bound="Answer")
T = TypeVar("T")


class Answer(Struct, kw_only=True):
    @classmethod
    def of(cls: type[A], row: object, **more: Any) -> A:
        """What *row* has under the names of the fields, and *more*."""
        rest = [name for name in cls.__struct_fields__ if name not in more]
        return cls(**{name: getattr(row, name) for name in rest}, **more)


class Page(Answer, Generic[T]):
    """`next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None


class Mistake(Answer):
    """What is wrong or odd, and the cure; `path` is empty for all that was sent."""

    path: str
    message: str
    hint: str


class ProblemDetails(Answer):
    """An error (RFC 9457).  `errors` has each mistake when there are several; nothing was done.

    `current_rev` is the revision of what somebody else has changed, after a failed `If-Match`.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str
    request_id: str
    errors: list[Mistake]
    current_rev: int | msgspec.UnsetType | None = msgspec.UNSET


class Named(Answer):
    id: UUID
    name: str


class Resources(Answer):
    """cpu in millicores, memory and disk in bytes, gpu in devices."""

    cpu: _Amount
    memory: _Amount
    disk: _Amount
    gpu: _Amount


class Submitted(Answer):
    """What came of a submission.  When not `changed`, the same specification was there.

    `rerun` says that the job had ended and that every slot runs again.
    """

    id: UUID
    name: str
    version: int
    state: JobState
    created: bool
    changed: bool
    rerun: bool
    sentence: str
    warnings: list[Mistake]


class SubmittedMany(Answer):
    items: list[Submitted]


class Valid(Answer):
    """`spec` is the specification as it is understood, with every default."""

    valid: bool
    spec: _Spec
    warnings: list[Mistake]


class Job(Answer):
    """`tally` counts its executions by what is observed of them.

    `reasons` are why it is as it is: what each `is`, its `cause`, its numbers and times.
    """

    id: UUID
    name: str
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


class JobInFull(Job):
    spec: _Spec


class Version(Answer):
    number: int
    digest: str
    actor: str
    created_at: datetime
    spec: _Spec


class Execution(Answer):
    """`ran` is in seconds; `code`, `message` and `hint` say why it did not end well."""

    id: UUID
    job: Named
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
    ran: float | None
    rev: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class Transition(Answer):
    rev: int
    lane: Literal["desired", "observed"]
    before: _State
    after: _State
    writer: Writer
    actor: str
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


class Node(Answer):
    """`quarantined` and `degraded` say why; `load` is as its last heartbeat said."""

    id: UUID
    name: str
    sentence: str
    approval: Approval
    connection: Connection
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


class JoinToken(Answer):
    """The token is never shown again."""

    token: str


class Enrolled(Answer):
    """The id of the node, and the credential that it signs in with, never shown again."""

    node: UUID
    credential: str
    name: str
    approval: Approval


class Evaluation(Answer):
    id: int
    job: Named
    type: JobType
    priority: int
    state: EvaluationState
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


class Event(Answer):
    id: int
    at: datetime
    topic: str
    what: str
    actor: str
    message: str
    job_id: UUID | None = field(name="job")
    execution_id: UUID | None = field(name="execution")
    node_id: UUID | None = field(name="node")
    data: dict[str, Any]


class Events(Answer):
    """`cursor` leads on from here, also when nothing has happened yet."""

    items: list[Event]
    cursor: str


class Queue(Answer):
    """The queue of jobs that wait for evaluation, and whether it is paused."""

    paused: bool
    paused_reason: str
    paused_by: str
    paused_at: datetime | None
    stats: BrokerStats


class NodeCounts(Answer):
    total: int
    approved: int
    waiting_for_approval: int
    connected: int
    lost: int
    draining: int
    degraded: int


class Status(Answer):
    """The cluster on one screen; `missing` is why it is not `ready`."""

    ready: bool
    missing: str
    warning: str
    jobs: dict[str, int]
    nodes: NodeCounts
    capacity: Resources
    allocated: Resources
    queue: Queue


# --- bodies ----------------------------------------------------------------------------------


class Body(Struct, forbid_unknown_fields=True):
    pass


class Nothing(Body):
    """The body of a request that has nothing to say; it may be left out."""


class Batch(Body):
    """Each job is read by the same reader as a single one: its text is kept until then."""

    jobs: Annotated[
        list[Annotated[msgspec.Raw, Meta(extra_json_schema={"$ref": JOB_SPEC})]],
        Meta(min_length=1, max_length=MOST),
    ]
    rerun: bool = False


class Stop(Body):
    reason: _Reason = ""


class Pause(Body):
    reason: Annotated[_Reason, Meta(min_length=1)]


class Eligible(Body):
    eligible: bool = True
    reason: _Reason = ""


class Drain(Body):
    drain: bool = True


class NewJoinToken(Body):
    """What a join token allows; `expires_in` in seconds."""

    uses: Annotated[int, Meta(ge=1, le=10_000)] = 1
    expires_in: Annotated[int, Meta(ge=60, le=30 * 86400)] = 3600
    auto_approve: bool = False
    labels: dict[str, str] = {}
    label: Annotated[str, Meta(max_length=100, pattern="^[^\0]*$")] = ""


class Enrolment(Body):
    """`key` is a secret that the agent makes itself, to ask again when the answer was lost."""

    token: Annotated[str, Meta(max_length=500)]
    name: Annotated[str, Meta(max_length=500, extra_json_schema={"pattern": f"^{NAME.pattern}$"})]
    labels: dict[str, str] = {}
    key: Annotated[str, Meta(max_length=500)] = ""


# --- parameters ------------------------------------------------------------------------------


class Parameters(Body):
    """What an address takes after its question mark; nothing, when it is not said."""


class Paging(Parameters):
    """What every list takes.  A list's own filters are fields beside these; nothing else is."""

    limit: Annotated[int, Meta(ge=1, le=MOST, description="how many at most")] = 50
    cursor: Annotated[str, Meta(max_length=500, description="`next_cursor` of a page")] = ""


class Jobs(Paging):
    state: tuple[JobState, ...] = ()
    type: tuple[JobType, ...] = ()
    name: Annotated[
        str, Meta(max_length=63, pattern="^[^\0]*$", description="what the name begins with")
    ] = ""


class Executions(Paging):
    observed: tuple[Observed, ...] = ()
    node: Annotated[str, Meta(max_length=63, description="name, id or beginning of an id")] = ""


class JobExecutions(Paging):
    observed: tuple[Observed, ...] = ()
    slot: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None


class Nodes(Paging):
    approval: tuple[Approval, ...] = ()
    connection: tuple[Connection, ...] = ()


class Evaluations(Paging):
    state: tuple[EvaluationState, ...] = ()


class Feed(Parameters):
    cursor: Annotated[
        str,
        Meta(
            max_length=200,
            description="of the last answer; nothing for the beginning, `now` for the end",
        ),
    ] = ""
    limit: Annotated[int, Meta(ge=1, le=MOST)] = 100
    last: Annotated[int, Meta(ge=0, le=MOST, description="only so many newest ones")] = 0
