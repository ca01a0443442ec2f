"""What is sent and answered: each struct reads or writes the JSON, and describes it in OpenAPI.

Answers are a promise: fields are added, never changed.  A field is called as the attribute of the
row that it shows.
"""

from .answers import (
    JOB_SPEC,
    Answer,
    Mistake,
    Named,
    NamedJob,
    Page,
    ProblemDetails,
    Resources,
    Warned,
)
from .evaluations import Evaluation, EvaluationInFull, Evaluations
from .events import Event, Events, Feed
from .executions import Execution, ExecutionInFull, Executions, JobExecutions, Output, Transition
from .jobs import Batch, Job, JobInFull, Jobs, Stop, Submitted, SubmittedMany, Valid, Version
from .namespaces import Namespace, NewNamespace
from .nodes import (
    Approve,
    Credential,
    Drain,
    Eligible,
    Enrolled,
    Enrolment,
    JoinToken,
    Labels,
    Myself,
    NewJoinToken,
    Node,
    Nodes,
)
from .requests import (
    Body,
    InNamespace,
    NamespaceName,
    Nothing,
    Paging,
    PagingInNamespace,
    Parameters,
)
from .secrets import KeptSecret, Secret, SecretValue
from .status import NodeCounts, Pause, Queue, Status

__all__ = [
    "JOB_SPEC",
    "Answer",
    "Approve",
    "Batch",
    "Body",
    "Credential",
    "Drain",
    "Eligible",
    "Enrolled",
    "Enrolment",
    "Evaluation",
    "EvaluationInFull",
    "Evaluations",
    "Event",
    "Events",
    "Execution",
    "ExecutionInFull",
    "Executions",
    "Feed",
    "InNamespace",
    "Job",
    "JobExecutions",
    "JobInFull",
    "Jobs",
    "JoinToken",
    "KeptSecret",
    "Labels",
    "Mistake",
    "Myself",
    "Named",
    "NamedJob",
    "Namespace",
    "NamespaceName",
    "NewJoinToken",
    "NewNamespace",
    "Node",
    "NodeCounts",
    "Nodes",
    "Nothing",
    "Output",
    "Page",
    "Paging",
    "PagingInNamespace",
    "Parameters",
    "Pause",
    "ProblemDetails",
    "Queue",
    "Resources",
    "Secret",
    "SecretValue",
    "Status",
    "Stop",
    "Submitted",
    "SubmittedMany",
    "Transition",
    "Valid",
    "Version",
    "Warned",
]
