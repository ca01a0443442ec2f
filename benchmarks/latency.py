"""How soon does a submitted job run, when nothing else does?"""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from statistics import median

from tests.chaos.cluster import Cluster, until

from .stage import options, profiled, stage
from .table import Row, percentile, publish

WARM_UP = 10
PAUSE = 0.05

TARGETS = {"bid": (30.0, 100.0), "none": (15.0, None)}
WORDS = {"bid": "with bidding", "none": "without approval"}

# Each moment of a job's way, in milliseconds since its client began to ask.
_MOMENTS = """
    SELECT extract(epoch FROM j.created_at), extract(epoch FROM v.leased_at),
        extract(epoch FROM v.leased_at - v.waited_since),
        (SELECT jsonb_object_agg(h.lane || ' ' || h.after, extract(epoch FROM h.at))
         FROM orchestrator_executionhistory h WHERE h.execution_id = e.id)
    FROM orchestrator_job j
    JOIN orchestrator_execution e ON e.job_id = j.id
    JOIN LATERAL (SELECT * FROM orchestrator_evaluation v WHERE v.job_id = j.id
                  ORDER BY v.id LIMIT 1) v ON true
    WHERE j.name = %s
"""


def measure(cluster: Cluster, approval: str, jobs: int) -> list[Row]:
    """Submit jobs one after the other, each when the one before it has ended."""
    running, picked_up, answered = [], [], []
    ways: dict[str, list[float]] = {}
    for number in range(-WARM_UP, jobs):
        name = f"{approval}-{number + WARM_UP}"
        began, answer = _submit(cluster, name, approval)
        until(lambda name=name: _has_ended(cluster, name), within=30, say=cluster.said)  # type: ignore[misc]
        time.sleep(PAUSE)  # Idle is when nothing of the last one goes on.
        if number < 0:
            continue
        ((created, leased, waited, moments),) = cluster.rows(_MOMENTS, name)
        moments |= {"job created": created, "job leased": leased}
        for moment, at in moments.items():
            ways.setdefault(moment, []).append((float(at) - began) * 1000)
        running.append((float(moments["observed running"]) - began) * 1000)
        picked_up.append(float(waited) * 1000)
        answered.append(answer * 1000)
    way = {moment: round(median(times), 1) for moment, times in ways.items()}
    fast, slow = TARGETS[approval]
    said = f"submit → running, idle, {WORDS[approval]}"
    detail = {
        "jobs": jobs,
        "answered_ms": round(median(answered), 1),
        "way_ms": dict(sorted(way.items(), key=lambda it: it[1])),
    }
    return [
        Row(f"{said}, p50", round(median(running), 1), "ms", fast, detail=detail),
        Row(f"{said}, p99", round(percentile(running, 0.99), 1), "ms", slow),
        Row(
            f"evaluation pick-up by an idle worker, {WORDS[approval]}, p50",
            round(median(picked_up), 1),
            "ms",
            8.0,
            detail={"p99_ms": round(percentile(picked_up, 0.99), 1)},
        ),
    ]


def _submit(cluster: Cluster, name: str, approval: str) -> tuple[float, float]:
    """When it was begun to ask, and how long the answer took, in seconds."""
    spec = {"name": name, "approval": approval, "task": {"command": ["sleep", "0.1"]}}
    began, clock = _now(), time.perf_counter()
    cluster.client.post("jobs", json=spec).raise_for_status()
    return began, time.perf_counter() - clock


def _has_ended(cluster: Cluster, name: str) -> bool:
    state = cluster.one("SELECT state FROM orchestrator_job WHERE name = %s", name)
    assert state not in ("failed", "stopped"), f"{name} is {state}"
    return bool(state == "completed")


def _now() -> float:
    """The clock of the machine, which is the database's too."""
    return datetime.now().timestamp()  # noqa: DTZ005, TID251 - an edge


def rows(chosen: argparse.Namespace) -> list[Row]:
    found = []
    with stage(chosen, agents=1) as cluster:
        for approval in TARGETS:
            with profiled(cluster, chosen, f"latency-{approval}"):
                found += measure(cluster, approval, chosen.jobs)
    return found


if __name__ == "__main__":
    publish("latency", rows(options(__doc__, jobs=100)))
