"""How fast does pure placement decide?  Prints a table, and JSON with --json."""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from orchestrator import spec
from orchestrator.lifecycle import Desired, JobState, Observed
from orchestrator.scheduling.feasibility import demand
from orchestrator.scheduling.placement_record import record
from orchestrator.scheduling.plan import Plan
from orchestrator.scheduling.slot_scheduler import schedule
from orchestrator.scheduling.world import ExecutionView, JobView, Nodes, Room, World

NOW = datetime(2030, 1, 1, tzinfo=UTC)
GIB = 2**30


def cluster(nodes: int, seed: int = 1) -> Room:
    chance = np.random.default_rng(seed)
    size = chance.choice([4, 8, 16, 32], nodes)
    capacity = np.stack([size * 1000, size * 4 * GIB, size * 20 * GIB, size * 0], axis=1)
    known = Nodes(
        ids=[f"node-{i:05}" for i in range(nodes)],
        names=[f"node-{i:05}" for i in range(nodes)],
        labels=[
            {
                "node.driver.process": "true",
                "arch": ["amd64", "arm64"][i % 5 == 0],
                "zone": "abcd"[i % 4],
            }
            for i in range(nodes)
        ],
        capacity=capacity.astype(np.int64),
        offered=capacity.astype(np.int64),
        ready=np.ones(nodes, dtype=np.bool_),
        unready=[""] * nodes,
    )
    return Room(known, np.zeros((nodes, 4), dtype=np.int64))


def world(on: Room, executions: tuple[ExecutionView, ...] = (), **fields: object) -> World:
    ordinary: dict[str, object] = {"name": "bench", "task": {"command": ["true"]}}
    wanted = spec.parse(ordinary | {"constraints": ["arch = amd64"]} | fields)
    job = JobView(
        id="job",
        name="bench",
        spec=wanted,
        count=wanted.count,
        version=1,
        generation=spec.generation(wanted),
        round=1,
        state=JobState.PENDING,
        submitted_at=NOW,
    )
    return World(job, executions, on, NOW)


def one_job(count: int, nodes: int, **fields: object) -> float:
    asked = world(cluster(nodes), count=count, **fields)
    began = time.perf_counter()
    plan = schedule(asked)
    took = time.perf_counter() - began
    assert len(plan.place) == count, plan.summary
    return took


def many_jobs(count: int, nodes: int, shapes: int = 1) -> float:
    on = cluster(nodes)
    worlds = [
        world(on, task={"command": ["true"], "resources": {"memory": (64 + i) * 2**20}})
        for i in range(shapes)
    ]
    began = time.perf_counter()
    for i in range(count):
        plan = schedule(worlds[i % shapes])
        for place in plan.place:
            on.take(place.node, place.need)
    return time.perf_counter() - began


def look_again(count: int, nodes: int) -> float:
    """A job with all its executions running, evaluated once more."""
    on = cluster(nodes)
    wanted = world(on, count=count, approval="none")
    plan: Plan = schedule(wanted)
    executions = tuple(
        ExecutionView(
            id=f"{i:06}",
            node=place.node,
            slot=place.slot,
            attempt=1,
            version=1,
            generation=wanted.job.generation,
            round=1,
            desired=Desired.RUNNING,
            observed=Observed.RUNNING,
            created_at=NOW,
            started_at=NOW,
        )
        for i, place in enumerate(plan.place)
    )
    full = world(on, executions, count=count, timeouts={"execution": "1h"})
    began = time.perf_counter()
    schedule(full)
    return time.perf_counter() - began


def explained(nodes: int) -> float:
    """The record of a task that is too large for every node."""
    asked = world(cluster(nodes), task={"command": ["true"], "resources": {"cpu": 64}})
    began = time.perf_counter()
    made = record(asked.room, demand(asked.job.spec))
    took = time.perf_counter() - began
    assert made["could_run_now"] == 0
    return took


QUESTIONS = {
    "one job of 10,000 on 5,000 nodes": (lambda: one_job(10_000, 5_000), 0.1),
    "the same, spread over zones": (
        lambda: one_job(10_000, 5_000, spread=[{"over": "zone"}]),
        None,
    ),
    "10,000 one-slot jobs on 5,000 nodes": (lambda: many_jobs(10_000, 5_000), 1.0),
    "1,000 one-slot jobs, all of other shapes": (lambda: many_jobs(1_000, 5_000, 1_000), None),
    "evaluate a job of 10,000 running": (lambda: look_again(10_000, 5_000), 0.03),
    "explain on 5,000 nodes": (lambda: explained(5_000), 0.2),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true", help="print JSON only")
    options.add_argument("--runs", type=int, default=5)
    chosen = options.parse_args()
    results = []
    for question, (measure, target) in QUESTIONS.items():
        times = sorted(measure() for _ in range(chosen.runs))
        results.append(
            {
                "question": question,
                "median_s": round(times[len(times) // 2], 5),
                "best_s": round(times[0], 5),
                "target_s": target,
            }
        )
    if not chosen.json:
        print(f"{'question':45} {'median':>10} {'best':>10} {'target':>8}")
        for it in results:
            target = f"{it['target_s']:.2f} s" if it["target_s"] else "-"
            print(
                f"{it['question']:45} {it['median_s'] * 1e3:7.1f} ms {it['best_s'] * 1e3:7.1f} ms"
                f" {target:>8}"
            )
    print(json.dumps({"benchmark": "placement", "results": results}))


if __name__ == "__main__":
    main()
