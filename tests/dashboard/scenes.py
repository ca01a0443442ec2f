"""A cluster in the middle of its day: every state somewhere, for pages to be drawn from."""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.utils import timezone

from nodes.models import Node, NodeHeartbeat
from nodes.protocol.resources import Resources
from orchestrator.explain.reasons import NoRoom, Unplaced, dump
from orchestrator.lifecycle import Observed
from orchestrator.models import (
    Evaluation,
    Event,
    Execution,
    ExecutionHistory,
    ExecutionOutput,
    Job,
    SlotState,
    WorkerProcess,
)
from orchestrator.scheduling.slot_set import of_ranges
from tests import rows

GIB = 2**30
O = Observed  # noqa: E741 - a column of words reads better.


def scene() -> dict[str, Any]:
    """Fill an empty database; returns what tests want to point at."""
    nodes = _nodes()
    words = _running_job(nodes)
    render = _failed_job(nodes)
    train = _blocked_job(nodes)
    for number in range(6):
        _completed_job(nodes, number)
    stopped = _stopped_job(nodes)
    many = _large_job(nodes)
    _queue(words, train, many)
    _events(words, render, train, nodes)
    return {
        "nodes": nodes,
        "running": words,
        "failed": render,
        "blocked": train,
        "stopped": stopped,
        "large": many,
    }


def _nodes() -> list[Node]:
    zones = ("fra-1", "fra-1", "fra-2", "fra-2", "ams-1")
    made = [
        rows.node(
            name=f"c-{number:02d}",
            cpu=16000,
            memory=64 * GIB,
            labels={"zone": zone, "pool": "general"},
            attributes={
                "node.driver.process": "true",
                "node.arch": "x86_64",
                "node.os": "linux",
            },
        )
        for number, zone in enumerate(zones, 1)
    ]
    rows.node(name="c-06", cpu=32000, memory=128 * GIB, draining=True, labels={"zone": "ams-1"})
    rows.node(name="c-07", cpu=16000, memory=64 * GIB, eligible=False, labels={"zone": "ams-1"})
    rows.node(name="gpu-01", cpu=64000, memory=256 * GIB, approval="pending", capacity_gpu=4)
    lost = rows.node(name="edge-3", cpu=4000, memory=8 * GIB, labels={"pool": "edge"})
    Node.objects.filter(pk=lost.pk).update(connection="disconnected")
    NodeHeartbeat.objects.filter(node=lost).update(seen_at=timezone.now() - timedelta(minutes=4))
    NodeHeartbeat.objects.exclude(node=lost).update(running=3)
    return [*made, lost]


def _running_job(nodes: list[Node]) -> Job:
    job = rows.job(name="word-count", count=24, task={"command": ["python3", "count.py"]})
    seen = [O.COMPLETED] * 9 + [O.RUNNING] * 7 + [O.PREPARING] * 2 + [O.ASK_FOR_BID] * 2
    for slot, state in enumerate(seen):
        on = nodes[slot % 5]
        made = rows.execution(job, on, slot=slot, observed=state, cpu=900, memory=5 * GIB)
        if state is O.COMPLETED:
            ExecutionOutput.objects.create(
                execution=made, stdout=_PRINTED, stdout_size=len(_PRINTED)
            )
    failed = rows.execution(job, nodes[1], slot=20, observed=O.FAILED, cpu=900, memory=5 * GIB)
    _end(failed, exit_code=137, code="out-of-memory", message="killed: it used more than 5 GiB")
    rows.execution(job, nodes[2], slot=20, attempt=2, observed=O.RUNNING, cpu=900, memory=5 * GIB)
    rows.execution(job, nodes[5], slot=21, observed=O.LOST, cpu=900, memory=GIB)
    Execution.objects.filter(job=job, observed=O.COMPLETED).update(settled=True)
    _state(job, "running", "",
           {"completed": 9, "running": 8, "preparing": 2, "ask_for_bid": 2, "failed": 1, "lost": 1},
           {"done": of_ranges([(0, 8)]), "tried": 1})  # fmt: skip
    SlotState.objects.create(job=job, slot=20, attempts=1, failed_attempts=1)
    return job


def _failed_job(nodes: list[Node]) -> Job:
    job = rows.job(name="render-frames", count=6, priority=70)
    for attempt in (1, 2, 3):
        made = rows.execution(job, nodes[attempt], slot=2, attempt=attempt, observed=O.FAILED)
        _end(made, exit_code=1, code="exit", message="blender: no such scene: 'intro.blend'")
        Execution.objects.filter(pk=made.pk).update(settled=True)
    for slot in (0, 1):
        made = rows.execution(job, nodes[slot], slot=slot, observed=O.COMPLETED)
        Execution.objects.filter(pk=made.pk).update(settled=True)
    why = "slot 2 failed 3 of 3 attempts; the last: blender: no such scene: 'intro.blend'"
    _state(job, "running", "", {}, {})
    _state(job, "failed", why, {"completed": 2, "failed": 3},
           {"done": of_ranges([(0, 1)]), "tried": 1, "failed": why})  # fmt: skip
    SlotState.objects.create(job=job, slot=2, attempts=3, failed_attempts=3)
    return job


def _blocked_job(nodes: list[Node]) -> Job:
    job = rows.job(
        name="train-model",
        count=2,
        task={"command": ["train"], "resources": {"cpu": "8", "memory": "48GiB"}},
        constraints=["pool = general"],
    )
    why = NoRoom(5, {"memory": 12 * GIB})
    _state(job, "queued", dump([Unplaced(2, 2, why, timezone.now())]), {}, {})
    need = {"cpu": 8000, "memory": 48 * GIB, "disk": 0, "gpu": 0}
    record = {
        "reason": dump([why])[0],
        "known": 9,
        "ready": {"pass": 5, "only_blocker": 1},
        "unready": {
            "drains": 1,
            "is not eligible": 1,
            "is not approved yet": 1,
            "is disconnected": 1,
        },
        "driver": {"name": "process", "pass": 9, "only_blocker": 0},
        "constraints": [{"text": "pool = general", "pass": 5, "only_blocker": 0}],
        "fit": {
            "cpu": {"pass": 6, "only_blocker": 0},
            "memory": {"pass": 1, "only_blocker": 4},
            "disk": {"pass": 9, "only_blocker": 0},
            "gpu": {"pass": 9, "only_blocker": 0},
        },
        "large_enough": 6,
        "eligible": 5,
        "could_run_now": 0,
        "need": need,
        "nearest": [
            {
                "node": str(node.pk),
                "name": node.name,
                "short": {"memory": 12 * GIB},
                "refusals": ["has 36 GiB memory free, needs 48 GiB memory"],
            }
            for node in nodes[:3]
        ],
    }
    Evaluation.objects.create(
        job=job, type="batch", priority=50, record=record,
        outcome="2 waiting for capacity",
        triggers={"job-submit": 1}, worker="worker-1", finished_at=timezone.now(),
        waited_since=timezone.now() - timedelta(milliseconds=6),
    )  # fmt: skip
    rows.blocked(job, why, Resources(**need), missing=2, waits_since=timezone.now())
    return job


def _completed_job(nodes: list[Node], number: int) -> None:
    job = rows.job(name=f"etl-hourly.{number}", count=4)
    for slot in range(4):
        on = nodes[(slot + number) % 5]
        made = rows.execution(job, on, slot=slot, observed=O.COMPLETED)
        Execution.objects.filter(pk=made.pk).update(settled=True)
    _state(job, "running", "", {}, {})
    _state(job, "completed", "", {"completed": 4}, {"completed": [[0, 3]]})


def _stopped_job(nodes: list[Node]) -> Job:
    job = rows.job(name="metronome", count=1)
    made = rows.execution(job, nodes[0], slot=0, observed=O.RUNNING, desired="stopped")
    rows.move(made, O.CANCELLED)
    Execution.objects.filter(pk=made.pk).update(settled=True)
    Job.objects.filter(pk=job.pk).update(stop_requested=True, stop_reason="the demo is over")
    _state(job, "running", "", {}, {})
    _state(job, "stopped", "", {"cancelled": 1}, {})
    return job


def _large_job(nodes: list[Node]) -> Job:
    job = rows.job(name="monte-carlo", count=10_000, priority=30)
    for slot in range(6000, 6012):
        rows.execution(job, nodes[slot % 5], slot=slot, observed=O.RUNNING, cpu=200)
    _state(job, "running", "",
           {"running": 12, "completed": 6000, "failed": 3},
           {"done": of_ranges([(0, 5999)]), "tried": 1})  # fmt: skip
    SlotState.objects.create(job=job, slot=6020, attempts=1, failed_attempts=1)
    return job


def _queue(words: Job, train: Job, many: Job) -> None:
    now = timezone.now()
    for at in range(14):
        begun = now - timedelta(seconds=40 - 2 * at)
        Evaluation.objects.create(
            job=words, type="batch", priority=50, state="complete",
            triggers={"execution-update": 1 + at % 3}, worker=f"worker-{at % 2 + 1}",
            outcome="approved 2 bids" if at % 2 else "placed 3, settled 1",
            waited_since=begun - timedelta(milliseconds=4), leased_at=begun,
            finished_at=begun + timedelta(milliseconds=7 + at),
        )  # fmt: skip
    rows.leased(words, "worker-1", triggers={"execution-update": 2})
    rows.dead_letter(
        many, "KeyError: 'slots' while planning; the worker's log has the trace", priority=30,
        retry_at=now + timedelta(minutes=3), triggers={"execution-failed": 1},
    )  # fmt: skip
    late = rows.job(name="nightly-report", count=1)
    rows.due(late, now + timedelta(minutes=2, seconds=5))
    for number in (1, 2):
        WorkerProcess.objects.create(
            name=f"worker-{number}", host="control-1", pid=4100 + number, evaluations=812 * number
        )


def _events(words: Job, render: Job, train: Job, nodes: list[Node]) -> None:
    said = (
        ("job", "submitted", "ana submits word-count, 24 slots", "user:ana", {"job_id": words.pk}),
        ("node", "joined", "c-05 joins and is approved", "", {"node_id": nodes[4].pk}),
        ("node", "silent", "edge-3 has not been heard of for 30 s", "", {"node_id": nodes[5].pk}),
        ("job", "failed", "render-frames failed: slot 2 used up its attempts", "",
         {"job_id": render.pk}),
        ("job", "blocked", "train-model waits for memory", "", {"job_id": train.pk}),
    )  # fmt: skip
    for topic, what, message, actor, about in said:
        Event.objects.create(topic=topic, what=what, message=message, actor=actor, **about)


def _end(execution: Execution, **how: Any) -> None:
    Execution.objects.filter(pk=execution.pk).update(**how)


def _state(
    job: Job, state: str, reason: Any, tally: dict[str, int], progress: dict[str, Any]
) -> None:
    if "done" in progress:
        progress["done"] = b64encode(progress["done"]).decode()
    Job.objects.filter(pk=job.pk).update(state=state, reason=reason, tally=tally, progress=progress)
    job.refresh_from_db()


def age(seconds: float) -> None:
    """Move everything that has happened *seconds* back, as if time had passed."""
    with connection.cursor() as cursor:
        for table, columns in _TIMES.items():
            moved = ", ".join(f"{c} = {c} - %(s)s * interval '1 second'" for c in columns)
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            cursor.execute(f"UPDATE {table} SET {moved}", {"s": seconds})
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def ended(execution: Execution, at: datetime) -> None:
    """Have *execution*, which has ended, have done so *at* another time."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # What is still to be checked, now.
        cursor.execute("SET LOCAL session_replication_role = replica")
        Execution.objects.filter(pk=execution.pk).update(ended_at=at)
        last = ExecutionHistory.objects.filter(execution=execution, after=execution.observed)
        last.update(at=at)
        cursor.execute("SET LOCAL session_replication_role = origin")


_TIMES = {
    "orchestrator_job": ("created_at", "round_at", "ended_at"),
    "orchestrator_execution": ("created_at", "started_at", "ended_at"),
    "orchestrator_executionhistory": ("at",),
}

_PRINTED = """slot 3 of 24: 412 of 9,893 files below /usr/lib/python3.11
50 files, 20113 words so far
100 files, 61877 words so far
150 files, 80411 words so far
total: 153912 words, 41200 lines, 412 files
"""
