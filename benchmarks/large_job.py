"""What does one end cost in a job of many slots: the worker's time, and what is written?"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import django

from tests.chaos.cluster import Cluster

from .stage import end_of_log, options, stage, written
from .table import Row, publish

NODES = 50

WARM = 5


def rows(chosen: argparse.Namespace) -> list[Row]:
    with stage(chosen, agents=0) as cluster:
        cluster.parts["worker"].stop()  # One of our own evaluates, and is watched.
        os.environ.update(cluster.environ, DJANGO_SETTINGS_MODULE="orchestrator.server.settings")
        django.setup()
        found = measure(cluster, chosen)
    what = f"one end in a job of {chosen.count:,} slots, replaced"
    return [
        Row(
            f"{what}: worker, p50",
            round(statistics.median(it for it, _, _ in found) * 1000, 1),
            "ms",
            20.0,
            detail={"ms": [round(it * 1000, 1) for it, _, _ in found]},
        ),
        Row(
            f"{what}: the database's log, p50",
            round(statistics.median(it for _, it, _ in found) / 1000, 2),
            "kB",
            4.0,
            detail={"kB": [round(it / 1000, 2) for _, it, _ in found]},
        ),
        Row(
            f"{what}: and pages that it copied, as it does once after a checkpoint, p50",
            round(statistics.median(it for _, _, it in found) / 1000, 2),
            "kB",
            detail={"kB": [round(it / 1000, 2) for _, _, it in found]},
        ),
    ]


def measure(cluster: Cluster, chosen: argparse.Namespace) -> list[tuple[float, int, int]]:
    """For each of some ends seconds of the worker, and bytes of records and of copied pages."""
    from orchestrator import broker, endpoint
    from orchestrator.models import Execution
    from orchestrator.worker import Worker
    from orchestrator.worker.worker_id import WorkerId
    from tests import rows

    network = Network([rows.node(cpu=10**6, memory=2**45) for _ in range(NODES)])
    resources = {"cpu": "100m", "memory": "1MiB"}
    spec = rows.job_spec(count=chosen.count, approval="none", task={"resources": resources})
    job = endpoint.submit(spec, actor="user:bench").job
    worker, found = Worker(WorkerId.mine()), []
    try:
        while worker.pull():
            network.obey()
        runs = Execution.objects.filter(job=job, observed="running")
        assert runs.count() == chosen.count
        cluster.database.execute("VACUUM ANALYZE")
        cluster.database.execute("CHECKPOINT")
        for _ in range(WARM + chosen.ends):
            ending = runs.order_by("created_at", "pk").first()
            assert ending is not None
            network.interrupt(ending)
            [lease] = broker.lease(None, 1, worker.name)
            before, began = end_of_log(cluster), time.perf_counter()
            worker._evaluate([lease])
            took = time.perf_counter() - began
            found.append((took, before, end_of_log(cluster)))
            assert network.obey() == 1
            worker.pull()
    finally:
        worker.heartbeat.end()
    logs = [(took, list(written(cluster, *between))) for took, *between in found[WARM:]]
    return [(took, sum(it.size for it in log), sum(it.pages for it in log)) for took, log in logs]


class Network:
    """Nodes that start at once whatever they are told to run."""

    def __init__(self, nodes: list[Any]) -> None:
        self.sent = {node.pk: 0 for node in nodes}
        self.seq = dict.fromkeys(self.sent, 0)

    def obey(self) -> int:
        """Take all orders, and report each as started; how many."""
        from nodes.protocol.messages import Happened, Report
        from orchestrator.planners import compute_forwarder

        count = 0
        while told := list(compute_forwarder.orders(self.sent)):
            for it in told:
                self.sent[it.node] = it.order_rev
                taken = [(order.execution, order.want) for order in it.orders]
                said = [Report(execution, Happened.START) for execution, _ in taken]
                self.say(it.node, taken, said)
                count += len(taken)
        return count

    def interrupt(self, execution: Any) -> None:
        """Its node does not know how it ended."""
        from nodes.protocol.messages import UNKNOWN_OUTCOME, Happened, Report

        report = Report(str(execution.pk), Happened.FAIL, code=UNKNOWN_OUTCOME)
        self.say(execution.node_id, [], [report])

    def say(self, node: Any, taken: list[Any], said: list[Any]) -> None:
        from nodes.callbacks import Inbound
        from orchestrator import endpoint

        self.seq[node] += 1
        frame = (node, 1, self.seq[node], self.sent[node], tuple(taken), tuple(said))
        endpoint.receive([Inbound(*frame)])


if __name__ == "__main__":
    publish("large_job", rows(options(__doc__, count=10_000, ends=30)))
