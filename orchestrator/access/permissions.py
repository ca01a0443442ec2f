"""Which permission of Django each kind of action needs, on the pages and in the API."""

JOBS = "orchestrator.change_job"
NODES = "nodes.change_node"
QUEUE = "orchestrator.change_clustersetting"
JOIN_TOKENS = "nodes.add_jointoken"
