"""What does a cluster cost that has nothing to do?"""

from __future__ import annotations

import argparse
import time

from .stage import cpu_seconds, options, stage, submit, wait_until_completed
from .table import Row, publish

AGENTS = 3
SETTLE = 5.0


def rows(chosen: argparse.Namespace) -> list[Row]:
    with stage(chosen, agents=AGENTS) as cluster:
        submit(cluster, "warm-up", 10)
        wait_until_completed(cluster, "warm-up", 10)
        time.sleep(SETTLE)
        before, began = cpu_seconds(cluster), time.monotonic()
        time.sleep(chosen.seconds)
        after, took = cpu_seconds(cluster), time.monotonic() - began
    share = {part: (after[part] - before[part]) / took * 100 for part in after}
    plane = {part: share[part] for part in ("web", "worker", "postgres")}
    agents = [share[part] for part in share if part not in plane]
    unit = "% of a core"
    return [
        Row("idle: web, workers and database together", round(sum(plane.values()), 2), unit, 3.0),
        Row("idle: the workers", round(share["worker"], 2), unit, 1.0),
        Row("idle: web", round(share["web"], 2), unit),
        Row("idle: the database", round(share["postgres"], 2), unit),
        Row("idle: one agent", round(sum(agents) / len(agents), 2), unit),
    ]


if __name__ == "__main__":
    publish("idle", rows(options(__doc__, seconds=20)))
