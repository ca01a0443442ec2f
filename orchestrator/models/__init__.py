"""Fields and constraints of what the orchestrator remembers.  The rules live elsewhere.

Moves between states are checked by the triggers of ``triggers.py``, generated from the tables of
``orchestrator.lifecycle``.
"""

from .access import Namespace, RoleBinding
from .cluster import ApiToken, ClusterSetting, Event
from .evaluations import BrokerRow, BrokerTrigger, Evaluation, WorkerProcess
from .executions import Execution, ExecutionHistory, ExecutionOutput
from .jobs import IdempotencyKey, Job, JobVersion
from .secrets import Secret

__all__ = [
    "ApiToken",
    "BrokerRow",
    "BrokerTrigger",
    "ClusterSetting",
    "Evaluation",
    "Event",
    "Execution",
    "ExecutionHistory",
    "ExecutionOutput",
    "IdempotencyKey",
    "Job",
    "JobVersion",
    "Namespace",
    "RoleBinding",
    "Secret",
    "WorkerProcess",
]
