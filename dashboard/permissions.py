"""Which permission an action of each kind needs."""

MAY = {
    "jobs": "orchestrator.change_job",
    "nodes": "nodes.change_node",
    "queue": "orchestrator.change_clustersetting",
}
