"""The Endpoint: every verb that people may use, and what nodes say.

Each verb is one transaction: the change, the journal, and the evaluation it asks for.
"""

from .cluster import set_algorithm
from .finding import find_execution, find_job, find_node, running_on, silent_nodes
from .jobs import Submitted, rerun, stop, submit, submit_many
from .lost_nodes import degraded, lose_silent, reconnect
from .nodes import (
    approve_node,
    reject_node,
    release_node,
    remove_node,
    set_draining,
    set_eligible,
)
from .reports import receive

__all__ = [
    "Submitted",
    "approve_node",
    "degraded",
    "find_execution",
    "find_job",
    "find_node",
    "lose_silent",
    "receive",
    "reconnect",
    "reject_node",
    "release_node",
    "remove_node",
    "rerun",
    "running_on",
    "set_algorithm",
    "set_draining",
    "set_eligible",
    "silent_nodes",
    "stop",
    "submit",
    "submit_many",
]
