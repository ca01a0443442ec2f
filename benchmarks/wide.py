"""How many executions a second of one very wide job, on many simulated agents?"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from orchestrator.server.environment import HOME
from tests.chaos.cluster import Cluster, Part

from .latency import WORDS
from .stage import cpu_seconds, options, profiled, stage, wait_until_completed
from .table import Row, publish

TARGET = 2000.0


@contextmanager
def simulated(cluster: Cluster, count: int) -> Iterator[None]:
    """Have *count* simulated agents connected, all in one process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.simulated", cluster.here, str(count)],
        cwd=HOME,
        env={**os.environ, "JOIN_TOKEN": cluster.join_token},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    log = cluster.directory / "simulated.log"
    cluster.parts["agents"] = Part("agents", (), {}, log, process)
    try:
        assert process.stdout.readline() == b"connected\n", cluster.said()
        yield
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()
        del cluster.parts["agents"]


def measure(cluster: Cluster, name: str, approval: str, count: int) -> dict[str, object]:
    before = cpu_seconds(cluster)
    spec = {"name": name, "count": count, "approval": approval, "task": {"command": ["true"]}}
    cluster.client.post("jobs", json=spec).raise_for_status()
    wait_until_completed(cluster, name, 1)
    after = cpu_seconds(cluster)
    ((seconds, placed, evaluations),) = cluster.rows(
        "SELECT extract(epoch FROM ended_at - created_at),"
        " (SELECT extract(epoch FROM max(e.created_at) - j.created_at)"
        "  FROM orchestrator_execution e WHERE e.job_id = j.id),"
        " (SELECT count(*) FROM orchestrator_evaluation v WHERE v.job_id = j.id)"
        " FROM orchestrator_job j WHERE name = %s",
        name,
    )
    return {
        "rate": round(count / float(seconds)),
        "seconds": round(float(seconds), 2),
        "placed_after": round(float(placed), 2),
        "evaluations": evaluations,
        "cpu_us_per_execution": {
            part: round((after[part] - before.get(part, 0)) * 1e6 / count) for part in after
        },
    }


def rows(chosen: argparse.Namespace) -> list[Row]:
    found = []
    with (
        stage(chosen, agents=0, simulated=chosen.agents) as cluster,
        simulated(cluster, chosen.agents),
    ):
        measure(cluster, "warm-up", "bid", 100)
        for approval, words in WORDS.items():
            with profiled(cluster, chosen, f"wide-{approval}"):
                runs = [
                    measure(cluster, f"{approval}-{run}", approval, chosen.count)
                    for run in range(chosen.runs)
                ]
            found.append(
                Row(
                    f"one job of {chosen.count:,} slots on {chosen.agents} agents, {words}",
                    median(float(str(run["rate"])) for run in runs),
                    "executions/s",
                    TARGET,
                    more_is_better=True,
                    detail={"runs": runs},
                )
            )
    return found


if __name__ == "__main__":
    publish("wide", rows(options(__doc__, count=10_000, agents=50, runs=3)))
