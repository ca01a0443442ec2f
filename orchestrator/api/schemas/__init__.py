"""What is sent and answered: each struct reads or writes the JSON, and describes it in OpenAPI.

Answers are a promise: fields are added, never changed.  A field is called as the attribute of the
row that it shows.
"""

from .answers import JOB_SPEC, Answer, Mistake, Named, Page, ProblemDetails, Resources
from .evaluations import Evaluation, EvaluationInFull, Evaluations
from .events import Event, Events, Feed
from .executions import Execution, ExecutionInFull, Executions, JobExecutions, Output, Transition
from .jobs import Batch, Job, JobInFull, Jobs, Stop, Submitted, SubmittedMany, Valid, Version
from .nodes import Drain, Eligible, Enrolled, Enrolment, JoinToken, NewJoinToken, Node, Nodes
from .requests import Body, Nothing, Paging, Parameters
from .status import NodeCounts, Pause, Queue, Status

__all__ = [
    "JOB_SPEC",
    "Answer",
    "Batch",
    "Body",
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
    "Job",
    "JobExecutions",
    "JobInFull",
    "Jobs",
    "JoinToken",
    "Mistake",
    "Named",
    "NewJoinToken",
    "Node",
    "NodeCounts",
    "Nodes",
    "Nothing",
    "Output",
    "Page",
    "Paging",
    "Parameters",
    "Pause",
    "ProblemDetails",
    "Queue",
    "Resources",
    "Status",
    "Stop",
    "Submitted",
    "SubmittedMany",
    "Transition",
    "Valid",
    "Version",
]
