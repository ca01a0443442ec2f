"""What does a reader cost the web processes who takes a thousand bytes a second of 50 MB/s?"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time

import psutil

from tests.chaos.cluster import Cluster, until
from tests.served import free_port

from .stage import options, stage
from .table import Row, publish

RATE = 50_000_000
"""Bytes that the task prints in a second, a twentieth of them at a time."""

PRINT = f"""
import sys, time
line, began, printed = b"x" * 99 + b"\\n", time.monotonic(), 0
while True:
    sys.stdout.buffer.write(line * {RATE // 20 // 100})
    printed += {RATE // 20}
    time.sleep(max(0, began + printed / {RATE} - time.monotonic()))
"""
SETTLE = 5.0
MIB = 2**20


def rows(chosen: argparse.Namespace) -> list[Row]:
    curl = shutil.which("curl")
    if curl is None:
        sys.exit("curl is not on PATH: it is what reads slowly")
    with stage(chosen, agents=1) as cluster:
        port = free_port()
        cluster.add("web-2", "web", "--port", str(port))
        execution = _begin(cluster)
        found = []
        for name, at, watched in (
            ("", cluster.port, ("web",)),
            (" through another process", port, ("web", "web-2")),
        ):
            address = f"http://127.0.0.1:{at}/api/v1/executions/{execution}/logs"
            found += _read(cluster, curl, address, chosen.seconds, name, watched)
        printed = _printed(cluster, execution)
        found.append(Row("slow reader: printed by the task meanwhile", printed, "MB/s"))
    return found


def _begin(cluster: Cluster) -> str:
    task = {"command": [sys.executable, "-c", PRINT]}
    cluster.client.post("jobs", json={"name": "loud", "task": task}).raise_for_status()
    running = "SELECT id FROM orchestrator_execution WHERE observed = 'running'"
    [[execution]] = until(lambda: cluster.rows(running), say=cluster.said)
    return str(execution)


def _read(
    cluster: Cluster, curl: str, address: str, seconds: int, name: str, watched: tuple[str, ...]
) -> list[Row]:
    """Read for so long, and how the web processes grow of it."""
    until(lambda: cluster.client.get(f"{address}?tail=1000").is_success, say=cluster.said)
    time.sleep(SETTLE)
    processes = [psutil.Process(cluster.parts[part].pid) for part in watched]
    before = [process.memory_info().rss for process in processes]
    peak = list(before)
    token = cluster.client.headers["Authorization"]
    with subprocess.Popen(
        [
            *(curl, "-sN", "--limit-rate", "1k", "-o", "/dev/null"),
            *("-H", f"Authorization: {token}", f"{address}?follow=true"),
        ]
    ) as reader:
        until_then = time.monotonic() + seconds
        while time.monotonic() < until_then:
            time.sleep(0.1)
            peak = [max(it, p.memory_info().rss) for it, p in zip(peak, processes, strict=True)]
        if reader.poll() is not None:
            raise RuntimeError(f"curl has ended: {reader.returncode}")
        reader.kill()
    time.sleep(SETTLE)
    after = [process.memory_info().rss for process in processes]
    return [
        Row(
            f"slow reader{name}: {part} grows by",
            round((peak[at] - before[at]) / MIB, 2),
            "MiB",
            5.0,
            detail={
                "seconds": seconds,
                "before_mib": round(before[at] / MIB, 1),
                "peak_mib": round(peak[at] / MIB, 1),
                "after_mib": round(after[at] / MIB, 1),
            },
        )
        for at, part in enumerate(watched)
    ]


def _printed(cluster: Cluster, execution: str) -> float:
    """What the task prints in a second, by the places of what it printed last, in MB."""

    def end() -> int:
        directory = cluster.directory / cluster.agents[0] / "logs"
        segments = sorted(directory.glob(f"{execution}.stdout.*"))
        return int(segments[-1].suffix[1:]) + segments[-1].stat().st_size

    first, began = end(), time.monotonic()
    time.sleep(SETTLE)
    return round((end() - first) / (time.monotonic() - began) / 1e6, 1)


if __name__ == "__main__":
    publish("slow_reader", rows(options(__doc__, seconds=60)))
