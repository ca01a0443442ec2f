"""The cluster that benchmarks run on, and what may be watched of it meanwhile."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from orchestrator.server.postgres import programs
from tests.chaos.cluster import Cluster, until

from .table import on_cores

TRUE = {"command": ["true"]}
AT_ONCE = 500
"""Jobs in one request, which is as many as the API takes."""


def options(description: str | None, **more: Any) -> argparse.Namespace:
    """What every benchmark takes; *more* are its own numbers with their defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cores", type=int, default=2, help="run everything on so many (2)")
    parser.add_argument(
        "--profile", type=Path, help="leave profiles here: py-spy's stacks and slow statements"
    )
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"({default})")
    return parser.parse_args()


@contextmanager
def stage(
    chosen: argparse.Namespace, *, agents: int, cpu: int = 64_000, simulated: int = 0
) -> Iterator[Cluster]:
    """A durable cluster in a temporary directory, on the chosen number of cores."""
    on_cores(chosen.cores)
    with ExitStack() as until_the_end:
        directory = until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="muster-bench-"))
        cluster = Cluster(Path(directory), agents=agents, workers=chosen.cores, cpu=cpu)
        until_the_end.enter_context(cluster.running(simulated=simulated))
        yield cluster


def submit(cluster: Cluster, name: str, count: int, **more: Any) -> None:
    """Submit *count* jobs of one slot that run `true`."""
    for first in range(0, count, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, count))
        jobs = [{"name": f"{name}-{number}", "task": TRUE, **more} for number in numbers]
        cluster.client.post("jobs/batch", json={"jobs": jobs}).raise_for_status()


def wait_until_completed(cluster: Cluster, name: str, count: int, within: float = 300) -> None:
    """Return when all *count* jobs whose names begin so are completed."""

    def left() -> int:
        return count - int(
            cluster.one(
                "SELECT count(*) FROM orchestrator_job WHERE state = 'completed' AND name LIKE %s",
                f"{name}%",
            )
        )

    until(
        lambda: left() == 0,
        within=within,
        pause=0.1,
        say=lambda: f"{left()} jobs are not completed\n{cluster.said()}",
    )


# --- the database's log ----------------------------------------------------------------------


class Record(NamedTuple):
    """One record of the write-ahead log."""

    kind: str
    file: str
    """``database/file`` of the first relation that it changes, or nothing."""
    size: int
    """Bytes, without those of pages."""
    pages: int
    """Bytes of pages that were copied with it, as each is once after a checkpoint."""


_RECORD = re.compile(
    r"rmgr: (\w+) +len \(rec/tot\): +(\d+)/ *(\d+),.*? desc: ([A-Z_+]*)(?:.*?: rel \d+/(\d+/\d+))?"
)


def end_of_log(cluster: Cluster) -> str:
    return str(cluster.one("SELECT pg_current_wal_insert_lsn()"))


def written(cluster: Cluster, since: str, until_then: str) -> Iterator[Record]:
    """The records between two ends of the log."""
    flushed = "SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn"
    until(lambda: cluster.one(flushed, until_then), say="all of the log is on disk")
    where = Path(cluster.one("SHOW data_directory"), "pg_wal")
    program = [programs.find() / "pg_waldump", "--path", where]
    ran = subprocess.run(
        [*program, "--start", since, "--end", until_then],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in ran.stdout.splitlines():
        found = _RECORD.match(line)
        assert found is not None, line
        size, total = int(found[2]), int(found[3])
        yield Record(f"{found[1]} {found[4]}".strip(), found[5] or "", size, total - size)


# --- profiles --------------------------------------------------------------------------------


@contextmanager
def profiled(cluster: Cluster, chosen: argparse.Namespace, what: str) -> Iterator[None]:
    """Watch all parts of *cluster* meanwhile, when that was asked for."""
    if chosen.profile is None:
        yield
        return
    into = chosen.profile.absolute() / what
    into.mkdir(parents=True, exist_ok=True)
    log_begins = _log_statements(cluster, "0")
    before = cpu_seconds(cluster)
    began = time.monotonic()
    spies = _spies(cluster, into)
    yield
    took = time.monotonic() - began
    for spy in spies:
        spy.send_signal(signal.SIGINT)
    for spy in spies:
        spy.wait(30)
    after = cpu_seconds(cluster)
    lines = [f"{took:.2f} s"]
    lines += [f"{name:10} {after[name] - before.get(name, 0):7.2f} s of CPU" for name in after]
    (into / "cpu.txt").write_text("\n".join(lines) + "\n")
    for raw in into.glob("*.raw"):
        raw.with_suffix(".txt").write_text(_hottest(raw))
    _log_statements(cluster, "-1")
    with cluster.server.place.log.open(errors="replace") as log:
        log.seek(log_begins)
        (into / "statements.txt").write_text(_statements(log.read()))


def cpu_seconds(cluster: Cluster) -> dict[str, float]:
    """The processor time that each part has used so far, its children included."""
    used: dict[str, float] = {}
    families = {name: part.family() for name, part in cluster.parts.items()}
    server = cluster.server.process
    if server is not None:
        top = psutil.Process(server.pid)
        families["postgres"] = [top, *top.children(recursive=True)]
    for name, family in families.items():
        total = 0.0
        for process in family:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            # Of children only those that are gone: the others are here themselves.
            total += times.user + times.system + times.children_user + times.children_system
        used[name] = total
    return used


def _spies(cluster: Cluster, into: Path) -> list[subprocess.Popen[bytes]]:
    program = shutil.which("py-spy")
    if program is None:
        print("py-spy is not on PATH: only processor time and statements are recorded")
        return []
    watched = {"web": cluster.parts["web"].pid}
    watched |= {f"worker-{n}": pid for n, pid in enumerate(cluster.workers(), 1)}
    watched |= {name: part.pid for name, part in cluster.parts.items() if "agent" in name}
    watched |= {f"spawner-of-{name}": cluster.spawner(name) or 0 for name in cluster.agents}
    spies = [
        subprocess.Popen(
            [
                *(program, "record", "-f", "raw", "-r", "250", "-d", "3600", "--nonblocking"),
                *("-o", str(into / f"{name}.raw"), "-p", str(pid)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name, pid in watched.items()
    ]
    for spy in spies:  # They may use the cores that what they watch may not.
        psutil.Process(spy.pid).cpu_affinity(list(range(os.cpu_count() or 1)))
    return spies


def _hottest(raw: Path, most: int = 60) -> str:
    """Functions by the share of samples that they, or what they called, were in."""
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    total = 0
    for line in raw.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        frames = stack.split(";")
        total += int(samples)
        own[frames[-1]] += int(samples)
        for frame in set(frames):
            below[frame] += int(samples)
    lines = [f"{total} samples", "", "with all that they call:"]
    lines += [f"{n / total:6.1%}  {frame}" for frame, n in below.most_common(most)]
    lines += ["", "by themselves:"]
    lines += [f"{n / total:6.1%}  {frame}" for frame, n in own.most_common(most)]
    return "\n".join(lines) + "\n"


def _log_statements(cluster: Cluster, threshold: str) -> int:
    """Have the database log what takes longer than *threshold*; where its log ends now."""
    cluster.database.execute(f"ALTER SYSTEM SET log_min_duration_statement = '{threshold}'")
    cluster.rows("SELECT pg_reload_conf()")
    return cluster.server.place.log.stat().st_size


_ENTRY = re.compile(
    r"^\S+ \S+ UTC \[\d+\] (muster \w+)? *LOG:  duration: ([\d.]+) ms  (\w+)[^:]*: (.*)", re.DOTALL
)
_LITERALS = (
    (re.compile(r"\s+"), " "),
    (re.compile(r"'(?:[^']|'')*'"), "?"),
    (re.compile(r"(ARRAY\[|\(|, )\?(::\w+)?(, ?\?(::\w+)?)+"), r"\1?, ..."),
    (re.compile(r"\b\d+\b"), "?"),
)


def _statements(text: str, most: int = 40) -> str:
    """The statements in the database's log, by role and wording, the costliest first."""
    spent: dict[tuple[str, str], list[float]] = {}
    for entry in re.split(r"\n(?=\d{4}-\d\d-\d\d )", text):
        found = _ENTRY.match(entry)
        if found is None or found[1] is None:
            continue
        query = found[4]
        for pattern, instead in _LITERALS:
            query = pattern.sub(instead, query)
        spent.setdefault((found[1], query[:300]), []).append(float(found[2]))
    ranked = sorted(spent.items(), key=lambda it: -sum(it[1]))[:most]
    lines = [f"{'calls':>7} {'total ms':>10} {'mean ms':>9}  statement"]
    lines += [
        f"{len(times):7} {sum(times):10.1f} {sum(times) / len(times):9.3f}  {who}: {query}"
        for (who, query), times in ranked
    ]
    return "\n".join(lines) + "\n"
