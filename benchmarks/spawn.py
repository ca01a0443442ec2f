"""What it costs to start a task and see it end: the process driver alone, `true` as the task.

    python benchmarks/spawn.py [--tasks 2000] [--at-once 16] [--state-dir DIR] [--isolation none]

Prints JSON.  The processor time is that of the agent's side, the spawner, every supervisor
and every task: all of it descends from this process and is reaped in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from nodes.agent.drivers.process import ProcessDriver
from nodes.agent.facts import Exited, Fact, Started
from nodes.agent.records import Entry, Stage
from nodes.agent.walls import AUTO, Wanted, build
from nodes.protocol.messages import ISOLATION, Task
from nodes.protocol.resources import Resources

#: As a job that says nothing asks for.
_NEEDS = Resources(cpu=100, memory=64 << 20)


class Run:
    """Keeps *at_once* tasks under way until *total* have ended."""

    def __init__(self, state: Path, command: tuple[str, ...], isolation: str) -> None:
        self.task = Task("process", command)
        self.began: dict[str, float] = {}
        self.took: list[float] = []
        walls = build(Wanted(isolation), state, os.cpu_count() or 1)
        self.driver = ProcessDriver(state, self.tell, walls)
        self.waiting = self.left = 0
        self.done = asyncio.Event()

    def tell(self, facts: list[Fact]) -> None:
        now = time.perf_counter()
        for fact in facts:
            if isinstance(fact, Started):
                continue
            assert isinstance(fact, Exited), fact
            assert fact.status == 0, fact
            self.took.append(now - self.began[fact.execution])
            self.driver.discard(fact.execution)
            self.left -= 1
            self.begin()
        if not self.left:
            self.done.set()

    def begin(self) -> None:
        if self.waiting:
            self.waiting -= 1
            name = f"e{time.monotonic_ns()}-{self.waiting}"
            self.began[name] = time.perf_counter()
            self.driver.start(Entry(name, Stage.STARTING, task=self.task, resources=_NEEDS))

    async def run(self, total: int, at_once: int) -> dict[str, float]:
        self.done.clear()
        self.took.clear()
        self.waiting = self.left = total
        began = time.perf_counter()
        for _ in range(min(at_once, total)):
            self.begin()
        await self.done.wait()
        wall = time.perf_counter() - began
        centiles = statistics.quantiles(self.took, n=100)
        return {
            "tasks": total,
            "at_once": at_once,
            "tasks_per_s": round(total / wall, 1),
            "p50_ms": round(centiles[49] * 1000, 2),
            "p99_ms": round(centiles[98] * 1000, 2),
        }


def spent(who: int) -> float:
    """Seconds of processor time."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--state-dir", type=Path)
    parser.add_argument("--isolation", choices=(*ISOLATION, AUTO), default="none")
    parser.add_argument("command", nargs="*", default=["/usr/bin/true"])
    options = parser.parse_args()
    state = options.state_dir or Path(tempfile.mkdtemp())
    state.mkdir(parents=True, exist_ok=True)
    run = Run(state, tuple(options.command), options.isolation)
    before = spent(resource.RUSAGE_CHILDREN)
    run.driver.open([], rebooted=False)
    own = spent(resource.RUSAGE_SELF)
    results = {
        "one by one": await run.run(min(200, options.tasks), 1),
        "many": await run.run(options.tasks, options.at_once),
    }
    own = spent(resource.RUSAGE_SELF) - own
    run.driver.close()
    await asyncio.to_thread(os.waitpid, -1, 0)  # The spawner ends: all is accounted for.
    total = sum(int(result["tasks"]) for result in results.values())
    cpu = {
        "agent": round(own / total * 1000, 3),
        "spawner, supervisors and tasks": round(
            (spent(resource.RUSAGE_CHILDREN) - before) / total * 1000, 3
        ),
    }
    print(json.dumps({**results, "cpu ms per task": cpu}))
    if options.state_dir is None:
        shutil.rmtree(state, ignore_errors=True)  # The driver removes its directories itself.


if __name__ == "__main__":
    asyncio.run(main())
