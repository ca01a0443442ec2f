"""What does a job of `true` cost the database: its log, commits, versions of rows, processor?"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

from tests.chaos.cluster import Cluster

from . import throughput
from .latency import WORDS
from .stage import Record, end_of_log, options, stage, written
from .table import Row, publish

WARM_UP = 50
MOST = 25
"""Relations that are named."""

TARGETS = {
    "none": {"log": 7.0, "commits": 0.2, "upd": 5.0, "hot": 80.0, "dead": 4.0, "cpu": 2.8},
    "bid": {"log": 10.0, "commits": 0.3, "upd": 8.0, "hot": 80.0, "dead": 6.0, "cpu": 3.4},
}

_CHANGES = """
    SELECT relname, n_tup_ins AS ins, n_tup_upd AS upd, n_tup_hot_upd AS hot, n_tup_del AS del
    FROM pg_stat_user_tables
"""
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"

# An index is its table's, and so is what was too long for a row.
_RELATIONS = """
    SELECT CASE WHEN c.relisshared THEN 0 ELSE d.oid END || '/' || pg_relation_filenode(c.oid),
        c.relname, coalesce(longer.relname, t.relname, c.relname)
    FROM pg_database d, pg_class c
    LEFT JOIN pg_index i ON i.indexrelid = c.oid
    LEFT JOIN pg_class t ON t.oid = i.indrelid
    LEFT JOIN pg_class longer ON longer.reltoastrelid = coalesce(t.oid, c.oid)
    WHERE d.datname = current_database() AND pg_relation_filenode(c.oid) IS NOT NULL
"""


def rows(chosen: argparse.Namespace) -> list[Row]:
    found = []
    for approval in TARGETS:
        with stage(chosen, agents=throughput.AGENTS) as cluster:
            found += measure(cluster, approval, chosen)
    return found


def measure(cluster: Cluster, approval: str, chosen: argparse.Namespace) -> list[Row]:
    """What each of many jobs costs; of what is counted, less what an idle cluster does."""
    cluster.database.execute("ALTER SYSTEM SET wal_keep_size = '4GB'")
    cluster.rows("SELECT pg_reload_conf()")
    throughput.measure(cluster, "warm-up", approval, WARM_UP)
    earlier, before = _settled(cluster, chosen), _settled(cluster, chosen)
    cluster.database.execute("CHECKPOINT")
    with cluster.database.transaction():  # All that is asked meanwhile is one commit.
        began = end_of_log(cluster)
        run = throughput.measure(cluster, approval, approval, chosen.jobs)
        log = list(written(cluster, began, end_of_log(cluster)))
    after = _settled(cluster, chosen)
    idle = _less(before, earlier)
    tables = _less(_less(after, before), idle)
    what, target = f"one job of `true`, {WORDS[approval]}", TARGETS[approval]
    return [
        *_log(cluster, what, log, chosen.jobs, target["log"]),
        _commits(what, tables["commits"].total(), chosen, log, idle, target["commits"]),
        *_changes(what, tables, chosen.jobs, target),
        Row(
            f"{what}: processor time",
            round(sum(run["cpu_ms_per_job"].values()), 2),
            "ms",
            target["cpu"],
            detail=run,
        ),
    ]


Counts = dict[str, Counter[str]]
"""By what is counted, and there by table."""


def _settled(cluster: Cluster, chosen: argparse.Namespace) -> Counts:
    """What has been counted, once each session has told: an idle one does so after 10 s."""
    time.sleep(chosen.settle)
    found: Counts = {"commits": Counter({"": cluster.one(_COMMITS)})}
    for name, *numbers in cluster.rows(_CHANGES):
        for what, number in zip(("ins", "upd", "hot", "del"), numbers, strict=True):
            found.setdefault(what, Counter())[name] = number
    return found


def _less(these: Counts, those: Counts) -> Counts:
    return {
        what: Counter({name: n - those[what][name] for name, n in counted.items()})
        for what, counted in these.items()
    }


def _log(cluster: Cluster, what: str, log: list[Record], jobs: int, target: float) -> list[Row]:
    named = {file: names for file, *names in cluster.rows(_RELATIONS)}
    relations, tables, kinds, pages = (Counter[str]() for _ in range(4))
    for it in log:
        name, table = named.get(it.file, (it.kind, it.kind))
        relations[name] += it.size
        tables[table] += it.size
        kinds[it.kind] += it.size
        pages[name] += it.pages
    return [
        Row(
            f"{what}: the database's log",
            round(relations.total() / jobs / 1000, 2),
            "kB",
            target,
            detail={
                "bytes_by_relation": _largest(relations, jobs),
                "bytes_by_table_with_its_indexes": _largest(tables, jobs),
                "bytes_by_record": _largest(kinds, jobs),
            },
        ),
        Row(
            f"{what}: and pages that it copied, as it does once after a checkpoint",
            round(pages.total() / jobs / 1000, 2),
            "kB",
            detail={"bytes_by_relation": _largest(pages, jobs)},
        ),
    ]


def _commits(
    what: str,
    count: int,
    chosen: argparse.Namespace,
    log: list[Record],
    idle: Counts,
    target: float,
) -> Row:
    that_write = sum(it.kind == "Transaction COMMIT" for it in log)
    detail = {
        "that_write": round(that_write / chosen.jobs, 3),
        "idle_per_second": round(idle["commits"].total() / chosen.settle, 1),
    }
    return Row(f"{what}: commits", round(count / chosen.jobs, 3), "", target, detail=detail)


def _changes(what: str, tables: Counts, jobs: int, target: dict[str, float]) -> list[Row]:
    dead = Counter({name: n - tables["hot"][name] for name, n in tables["upd"].items()})
    dead.update(tables["del"])
    updated, hot = tables["upd"].total(), tables["hot"].total()
    changes = {
        name: {it: round(tables[it][name] / jobs, 3) for it in ("ins", "upd", "hot", "del")}
        for name, _ in (tables["ins"] + tables["upd"] + tables["del"]).most_common(MOST)
    }
    return [
        Row(f"{what}: rows updated", round(updated / jobs, 2), "", target["upd"], detail=changes),
        Row(
            f"{what}: of them without a change in an index (HOT)",
            round(hot * 100 / updated, 1),
            "%",
            target["hot"],
            more_is_better=True,
        ),
        Row(
            f"{what}: dead rows, by other updates and deletes",
            round(dead.total() / jobs, 2),
            "",
            target["dead"],
            detail=_largest(dead, jobs, 3),
        ),
    ]


def _largest(counted: Counter[str], jobs: int, digits: int = 0) -> dict[str, Any]:
    shares = {name: round(n / jobs, digits or None) for name, n in counted.most_common(MOST)}
    return {name: share for name, share in shares.items() if share}


if __name__ == "__main__":
    publish("storage", rows(options(__doc__, jobs=1000, settle=15)))
