"""The Endpoint: every verb that people may use, and what nodes say.

Each verb is one transaction: the change, the journal, and the evaluation it asks for.
"""

from .cluster import set_algorithm
from .finding import counted_running, find_execution, find_job, find_node, running_on, silent_nodes
from .jobs import Submitted, rerun, stop, submit, submit_many
from .lost_nodes import degraded, lose_silent, reconnect
from .namespaces import create_namespace, delete_namespace
from .node_journal import record_node
from .nodes import (
    approve_node,
    label_node,
    reject_node,
    release_node,
    remove_node,
    set_draining,
    set_eligible,
)
from .reports import receive
from .secrets import delete_secret, missing, put_secret, with_users

__all__ = [
    "Submitted",
    "approve_node",
    "counted_running",
    "create_namespace",
    "degraded",
    "delete_namespace",
    "delete_secret",
    "find_execution",
    "find_job",
    "find_node",
    "label_node",
    "lose_silent",
    "missing",
    "put_secret",
    "receive",
    "reconnect",
    "record_node",
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
    "with_users",
]
