"""How many one-slot jobs a second go the whole way, from submission to completion?"""

from __future__ import annotations

import argparse
from statistics import median

from tests.chaos.cluster import Cluster

from .latency import WORDS, _now
from .stage import cpu_seconds, options, profiled, stage, submit, wait_until_completed
from .table import Row, publish

AGENTS = 4
TARGETS = {"bid": 300.0, "none": 500.0}


def measure(cluster: Cluster, name: str, approval: str, jobs: int) -> dict[str, object]:
    """The rate of one run, by the database's clock, and what it cost in processor time."""
    before, began = cpu_seconds(cluster), _now()
    submit(cluster, name, jobs, approval=approval)
    submitted = _now()
    wait_until_completed(cluster, name, jobs)
    after = cpu_seconds(cluster)
    ended = float(
        cluster.one(
            "SELECT extract(epoch FROM max(ended_at)) FROM orchestrator_job WHERE name LIKE %s",
            f"{name}-%",
        )
    )
    return {
        "rate": round(jobs / (ended - began), 1),
        "seconds": round(ended - began, 2),
        "submitted_after": round(submitted - began, 2),
        "cpu_ms_per_job": {
            part: round((after[part] - before.get(part, 0)) * 1000 / jobs, 2) for part in after
        },
        "evaluations": cluster.one(
            "SELECT count(*) FROM orchestrator_evaluation v JOIN orchestrator_job j"
            " ON j.id = v.job_id WHERE j.name LIKE %s",
            f"{name}-%",
        ),
    }


def rows(chosen: argparse.Namespace) -> list[Row]:
    found = []
    for cpu, where in ((64_000, ""), (4_000, ", full nodes")):
        with stage(chosen, agents=AGENTS, cpu=cpu) as cluster:
            measure(cluster, "warm-up", "bid", 50)
            for approval, target in TARGETS.items():
                with profiled(cluster, chosen, f"throughput-{approval}-{cpu}"):
                    runs = [
                        measure(cluster, f"{approval}-{run}", approval, chosen.jobs)
                        for run in range(chosen.runs)
                    ]
                found.append(
                    Row(
                        f"{chosen.jobs:,} jobs of `true`, {WORDS[approval]}{where}",
                        median(float(str(run["rate"])) for run in runs),
                        "jobs/s",
                        None if where else target,
                        more_is_better=True,
                        detail={"runs": runs},
                    )
                )
    return found


if __name__ == "__main__":
    publish("throughput", rows(options(__doc__, jobs=1000, runs=3)))
