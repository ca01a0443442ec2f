"""All benchmarks, one after the other, and one table: `python -m benchmarks [NAME …]`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from .table import RESULTS, Row, publish, show

HOME = Path(__file__).resolve().parent.parent
ON_A_CLUSTER = (
    "latency",
    "throughput",
    "storage",
    "wide",
    "idle",
    "blocked",
    "slow_reader",
    "authorise",
    "large_job",
    "history",
)
LONG = ("held",)
"""Half an hour each: only when they are named."""
OTHERS = {"placement": ("benchmarks/placement.py", "--json")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=", ".join((*OTHERS, *ON_A_CLUSTER, *LONG)))
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--profile", type=Path)
    chosen = parser.parse_args()
    names = chosen.names or [*OTHERS, *ON_A_CLUSTER]
    failed = [name for name in names if not _run(name, chosen)]
    print()
    show([row for name in names if name not in failed for row in _kept(name)])
    for name in failed:
        print(f"{name}: failed, see above")
    sys.exit(bool(failed))


def _run(name: str, chosen: argparse.Namespace) -> bool:
    """Run one benchmark in a process of its own; whether it ended well."""
    print(f"--- {name}", flush=True)
    if name in OTHERS:
        return _placement()
    words = [sys.executable, "-m", f"benchmarks.{name}", "--cores", str(chosen.cores)]
    if chosen.profile is not None:
        words += ["--profile", str(chosen.profile)]
    return subprocess.run(words, cwd=HOME, env=_environ(), check=False).returncode == 0


def _placement() -> bool:
    ran = subprocess.run(
        [sys.executable, *OTHERS["placement"]],
        cwd=HOME,
        env=_environ(),
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    if ran.returncode:
        return False
    publish(
        "placement",
        [
            Row(f"placing: {it['question']}", it["median_s"] * 1000, "ms", _ms(it["target_s"]))
            for it in json.loads(ran.stdout)["results"]
        ],
    )
    return True


def _environ() -> dict[str, str]:
    """Ours, without what names another database or another installation."""
    return {
        name: value
        for name, value in os.environ.items()
        if name != "DATABASE_URL" and not name.startswith("MUSTER_")
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _kept(name: str) -> list[Row]:
    kept = json.loads((RESULTS / f"{name}.json").read_text())
    return [
        Row(**{key: value for key, value in row.items() if key != "verdict"})
        for row in kept["rows"]
    ]


if __name__ == "__main__":
    main()
