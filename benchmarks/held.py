"""What does a stranger's transaction cost that stays open, so that vacuum removes nothing?"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from statistics import fmean, median
from threading import Event, Thread
from typing import Any

import psycopg

from orchestrator.server import postgres
from tests.chaos.cluster import Cluster

from . import throughput
from .stage import AT_ONCE, TRUE, options, profiled, stage
from .table import Row, percentile, publish

WARM_UP = 10.0
MINUTE = 60.0
UNFINISHED = 1000
"""Jobs that are there at once when as many are submitted as can be run."""
PIECE = 100
"""Of them, how many in one request."""
PACE = 0.1
"""Seconds between two requests at half load, and between two looks at the feed."""
PAGE = 500
"""Events in one answer, which is as many as the API gives."""
MOST = 12
"""Tables whose dead rows are named."""

_DEAD = """
    SELECT relname, n_dead_tup FROM pg_stat_user_tables
    WHERE n_dead_tup > 0 ORDER BY n_dead_tup DESC LIMIT %s
"""

# Of jobs that were submitted between two moments, by the database's clock.
_WAITS = """
    SELECT extract(epoch FROM h.at - j.created_at)
    FROM orchestrator_job j
    JOIN orchestrator_execution e ON e.job_id = j.id
    JOIN orchestrator_executionhistory h ON h.execution_id = e.id
    WHERE j.created_at >= %s AND j.created_at < %s AND h.lane = 'observed' AND h.after = 'running'
"""


@dataclass(frozen=True)
class Minute:
    """A minute of a phase, or a third of a shorter one."""

    rate: float
    """Jobs that ended, a second."""
    backlog: float
    """Jobs that were submitted and had not ended, in the middle."""
    behind: float
    """Seconds from an event to its client, at most."""


@dataclass(frozen=True)
class Phase:
    """Some minutes under the same conditions."""

    minutes: list[Minute]
    p99: float | None
    """From submission to running, in milliseconds; of nothing there is none."""
    dead: dict[str, int]

    @property
    def rate(self) -> float:
        return fmean(it.rate for it in self.minutes)

    @property
    def behind(self) -> float:
        return max(it.behind for it in self.minutes)

    def detail(self) -> dict[str, Any]:
        minutes = [
            {name: round(value, 2) for name, value in asdict(it).items()} for it in self.minutes
        ]
        return {
            "submit_to_running_p99_ms": self.p99,
            "minutes": minutes,
            "dead_rows": self.dead,
        }


def rows(chosen: argparse.Namespace) -> list[Row]:
    with stage(chosen, agents=throughput.AGENTS) as cluster, followed(cluster) as load:
        full = _phases(load, chosen, "full", load.saturate)
    rate = full["clean"].rate / 2
    with stage(chosen, agents=throughput.AGENTS) as cluster, followed(cluster) as load:
        half = _phases(load, chosen, "half", lambda: load.keep_up(rate))
    return [*_full(chosen, full), *_half(chosen, half, rate), _feed(full, half)]


def _phases(
    load: Load, chosen: argparse.Namespace, what: str, step: Callable[[], None]
) -> dict[str, Phase]:
    until_warm = time.monotonic() + WARM_UP
    while time.monotonic() < until_warm:
        step()
    around = min(chosen.around, chosen.minutes)
    found = {"clean": _phase(load, chosen, f"{what}-clean", around, step)}
    with held(load.cluster):
        found["held"] = _phase(load, chosen, f"{what}-held", chosen.minutes, step)
    found["released"] = _phase(load, chosen, f"{what}-released", around, step)
    return found


@contextmanager
def held(cluster: Cluster) -> Iterator[None]:
    """A transaction as of a dump or of a forgotten psql, with a snapshot and an id."""
    everything = cluster.server.place.conninfo(user=postgres.SUPERUSER)
    with psycopg.connect(everything) as stranger:
        stranger.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        stranger.execute("SET idle_in_transaction_session_timeout = 0")
        stranger.execute("SELECT pg_current_xact_id()")
        yield
        stranger.rollback()


def _phase(
    load: Load, chosen: argparse.Namespace, name: str, length: float, step: Callable[[], None]
) -> Phase:
    seconds = length * MINUTE
    count = max(3, round(length))
    minutes = []
    began = load.cluster.one("SELECT clock_timestamp()")
    for number in range(1, count):
        minutes.append(load.watch(seconds / count, step))
        print(f"{name} {number}: {minutes[-1]}", flush=True)
    with profiled(load.cluster, chosen, name):
        minutes.append(load.watch(seconds / count, step))
    print(f"{name} {count}: {minutes[-1]}", flush=True)
    ended = load.cluster.one("SELECT clock_timestamp()")
    waits = [float(wait) for (wait,) in load.cluster.rows(_WAITS, began, ended)]
    return Phase(
        minutes,
        p99=round(percentile(waits, 0.99) * 1000, 1) if waits else None,
        dead=dict(load.cluster.rows(_DEAD, MOST)),
    )


# --- the load, and the feed that tells of its ends -------------------------------------------


class Load:
    """Jobs of `true`, submitted as fast as they end or steadily; their ends by the feed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.is_over = Event()
        self.reader = Thread(target=self._follow, name="feed", daemon=True)
        self._submitted = self._ended = 0
        self._behind = 0.0
        self._kept_up: float | None = None

    def saturate(self) -> None:
        """Submit some more if fewer than UNFINISHED are there."""
        if self._submitted - self._ended < UNFINISHED:
            self._submit(PIECE)
        else:
            time.sleep(PACE / 10)

    def keep_up(self, rate: float) -> None:
        """Submit those that have become due since the last time, so many a second."""
        now = time.monotonic()
        if self._kept_up is None:
            self._kept_up = now
        due = min(int((now - self._kept_up) * rate), AT_ONCE)
        if due:
            self._kept_up += due / rate
            self._submit(due)
        time.sleep(max(0.0, now + PACE - time.monotonic()))

    def watch(self, seconds: float, step: Callable[[], None]) -> Minute:
        """Take steps for so long, and say what happened meanwhile."""
        began, before = time.monotonic(), self._ended
        self._behind = 0.0
        unfinished = []
        while time.monotonic() < began + seconds:
            if not self.reader.is_alive():
                raise RuntimeError("the feed can be followed no longer, see above")
            step()
            unfinished.append(self._submitted - self._ended)
        took = time.monotonic() - began
        return Minute((self._ended - before) / took, median(unfinished), self._behind)

    def _submit(self, count: int) -> None:
        numbers = range(self._submitted, self._submitted + count)
        jobs = [{"name": f"job-{number}", "task": TRUE} for number in numbers]
        self._submitted += count
        self.cluster.client.post("jobs/batch", json={"jobs": jobs}).raise_for_status()

    def _follow(self) -> None:
        """Read the feed to its end, again and again, until it is over."""
        cursor = "now"
        while not self.is_over.is_set():
            asked = {"cursor": cursor, "limit": PAGE}
            answer = self.cluster.client.get("events", params=asked).raise_for_status().json()
            now = datetime.now().timestamp()  # noqa: DTZ005, TID251 - an edge
            cursor = answer["cursor"]
            for event in answer["items"]:
                at = datetime.fromisoformat(event["at"]).timestamp()
                self._behind = max(self._behind, now - at)
                self._ended += event["what"] == "job-completed"
            if len(answer["items"]) < PAGE:
                self.is_over.wait(PACE)


@contextmanager
def followed(cluster: Cluster) -> Iterator[Load]:
    """A load whose feed is followed by a thread of its own."""
    load = Load(cluster)
    load.reader.start()
    try:
        yield load
    finally:
        load.is_over.set()
        load.reader.join(MINUTE)


# --- answers ---------------------------------------------------------------------------------


def _full(chosen: argparse.Namespace, full: dict[str, Phase]) -> list[Row]:
    first, last = full["held"].minutes[0].rate, full["held"].minutes[-1].rate
    clean, after = full["clean"].rate, full["released"].minutes[-1].rate
    detail = {name: phase.detail() for name, phase in full.items()}
    held_for = f"held transaction, {chosen.minutes:g} min"
    return [
        Row("jobs of `true`, saturated", round(clean, 1), "jobs/s", detail=detail),
        Row(f"{held_for}: last minute's rate", share(last, first), "% of first", 85.0, True),
        Row(f"{held_for}: first minute's rate", share(first, clean), "% of clean"),
        Row(f"{held_for}: rate after its end", share(after, clean), "% of clean", 95.0, True),
    ]


def _half(chosen: argparse.Namespace, half: dict[str, Phase], rate: float) -> list[Row]:
    detail = {"jobs_per_second": round(rate, 1)}
    detail |= {name: phase.detail() for name, phase in half.items()}
    said = f"held transaction, {chosen.minutes:g} min at half load"
    backlog = half["held"].minutes[-1].backlog / rate if rate else 0.0
    found = [Row(f"{said}: backlog at its end", round(backlog, 2), "s", 1.0, detail=detail)]
    before, held = half["clean"].p99, half["held"].p99
    if before and held:
        what = f"{said}: submit → running, p99"
        found.append(Row(what, round(held / before, 2), "of clean", 2.0))
    return found


def _feed(*loads: dict[str, Phase]) -> Row:
    behind = {name: max(load[name].behind for load in loads) for name in loads[0]}
    detail = {f"{name}_s": round(it, 2) for name, it in behind.items()}
    what = "held transaction: event feed behind, at most"
    return Row(what, round(behind["held"], 2), "s", 1.0, detail=detail)


def share(part: float, whole: float) -> float:
    """How many per cent *part* is of *whole*; of nothing it is none."""
    return round(part / whole * 100, 1) if whole else 0.0


if __name__ == "__main__":
    publish("held", rows(options(__doc__, minutes=10.0, around=2.0)))
