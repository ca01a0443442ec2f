"""Which permission an action of each kind needs."""

from orchestrator.access import permissions

MAY = {"jobs": permissions.JOBS, "nodes": permissions.NODES, "queue": permissions.QUEUE}
