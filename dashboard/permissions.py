"""Which permission an action of each kind needs."""

from orchestrator import permissions

MAY = {"jobs": permissions.JOBS, "nodes": permissions.NODES, "queue": permissions.QUEUE}
