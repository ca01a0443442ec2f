"""What do jobs cost that wait for room while nothing happens?"""

from __future__ import annotations

import argparse
import time
from typing import Any

from tests.chaos.cluster import Cluster, until

from .stage import AT_ONCE, cpu_seconds, options, stage
from .table import Row, publish

CLASSES = 10
CORES = 4
"""Of the one node, all taken; a class asks for a part of them that differs from all others."""


def block(cluster: Cluster, count: int) -> None:
    """Fill the node, and submit *count* jobs that would fit there if it were empty."""
    submit(cluster, "holds", 1, cores=lambda _: CORES, command=["sleep", "86400"])
    until(lambda: states(cluster) == {"running": 1}, within=60, say=cluster.said)
    submit(cluster, "waits", count, cores=lambda number: 1 + number % CLASSES / CLASSES)
    until(lambda: blocked(cluster) == count, within=600, pause=0.5, say=cluster.said)


def submit(
    cluster: Cluster, name: str, count: int, *, cores: Any, command: Any = ("true",)
) -> None:
    for first in range(0, count, AT_ONCE):
        jobs = [
            {
                "name": f"{name}-{number}",
                "task": {
                    "command": list(command),
                    "resources": {"cpu": f"{cores(number):.1f}"},
                },
            }
            for number in range(first, min(first + AT_ONCE, count))
        ]
        cluster.client.post("jobs/batch", json={"jobs": jobs}).raise_for_status()


def states(cluster: Cluster) -> dict[str, int]:
    return dict(cluster.rows("SELECT state, count(*) FROM orchestrator_job GROUP BY state"))


def blocked(cluster: Cluster) -> int:
    return int(cluster.one("SELECT count(*) FROM orchestrator_blockedjob"))


def written(cluster: Cluster) -> dict[str, int]:
    """How many rows of each table have been written, by statistics that are seconds old."""
    return dict(
        cluster.rows("SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables")
    )


def rows(chosen: argparse.Namespace) -> list[Row]:
    with stage(chosen, agents=1, cpu=CORES * 1000) as cluster:
        block(cluster, chosen.jobs)
        # What is left of the submissions: dead rows, and pages that are logged whole once more.
        cluster.database.execute("VACUUM ANALYZE")
        cluster.database.execute("CHECKPOINT")
        time.sleep(chosen.settle)
        cpu, tables, began = cpu_seconds(cluster), written(cluster), time.monotonic()
        ((wal, xid, *before),) = cluster.rows(f"{_NOW}, {_GROWING}")
        time.sleep(chosen.seconds)
        ((bytes_of_wal, queue, *after),) = cluster.rows(f"{_SINCE}, {_GROWING}", wal, xid)
        took = time.monotonic() - began
        used = cpu_seconds(cluster)
        time.sleep(chosen.settle)
        writes = {name: n - tables.get(name, 0) for name, n in written(cluster).items()}
        still = blocked(cluster)
    share = {part: round((used[part] - cpu[part]) / took * 100, 2) for part in used}
    evaluations, facts = (now - then for now, then in zip(after, before, strict=True))
    they = f"{chosen.jobs:,} blocked jobs"
    detail = {
        "seconds": round(took),
        "still_blocked": still,
        "rows_written": {name: n for name, n in sorted(writes.items()) if n},
        "cpu_percent": share,
    }
    return [
        Row(f"{they}: log of the database", kilobytes(bytes_of_wal, took), "kB/s", 5.0),
        Row(f"{they}: evaluations", evaluations, "rows", 0.5, detail=detail),
        Row(f"{they}: history and journal", facts, "rows", 0.5),
        Row(f"{they}: rows of the queue written", queue, "rows", 0.5),
        Row(f"{they}: workers and database", share["worker"] + share["postgres"], "% of a core"),
    ]


def kilobytes(bytes_of_wal: Any, seconds: float) -> float:
    return round(float(bytes_of_wal) / seconds / 1000, 3)


_NOW = "SELECT pg_current_wal_lsn()::text, pg_current_xact_id()::text"
_SINCE = """
    SELECT pg_current_wal_lsn() - %s::pg_lsn,
           (SELECT count(*) FROM orchestrator_blockedjob
            WHERE xmin::text::bigint >= %s::bigint %% (1::bigint << 32))
"""
_GROWING = """
    (SELECT count(*) FROM orchestrator_evaluation),
    (SELECT count(*) FROM orchestrator_event)
    + (SELECT count(*) FROM orchestrator_executionhistory)
"""


if __name__ == "__main__":
    publish("blocked", rows(options(__doc__, jobs=20_000, seconds=60, settle=15)))
