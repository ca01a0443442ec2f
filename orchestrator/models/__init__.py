"""Fields and constraints of what the orchestrator remembers.  The rules live elsewhere.

Moves between states are checked by the triggers of ``triggers.py``, generated from the tables of
``orchestrator.lifecycle``.
"""

from .access import FailedSignIns, Namespace, RoleBinding, Session
from .cluster import ApiToken, ClusterSetting, Event
from .evaluations import (
    BlockedClass,
    BlockedJob,
    BrokerDue,
    BrokerRow,
    BrokerTrigger,
    Evaluation,
    FreedNode,
    WorkerProcess,
)
from .executions import (
    Execution,
    ExecutionHistory,
    ExecutionOutput,
    LiveExecution,
    UntoldOrder,
)
from .jobs import IdempotencyKey, Job, JobVersion, RemovedHistory, SlotState
from .secrets import Secret

__all__ = [
    "ApiToken",
    "BlockedClass",
    "BlockedJob",
    "BrokerDue",
    "BrokerRow",
    "BrokerTrigger",
    "ClusterSetting",
    "Evaluation",
    "Event",
    "Execution",
    "ExecutionHistory",
    "ExecutionOutput",
    "FailedSignIns",
    "FreedNode",
    "IdempotencyKey",
    "Job",
    "JobVersion",
    "LiveExecution",
    "Namespace",
    "RemovedHistory",
    "RoleBinding",
    "Secret",
    "Session",
    "SlotState",
    "UntoldOrder",
    "WorkerProcess",
]
