"""Answers of benchmarks: a table for people, a file for comparisons, the machine beside both."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Row:
    """One number, and the number to reach."""

    question: str
    value: float
    unit: str
    target: float | None = None
    more_is_better: bool = False
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        if self.more_is_better:
            factor = self.target / self.value if self.value else float("inf")
        else:
            factor = self.value / self.target
        return "reached" if factor <= 1 else f"missed by a factor of {factor:.1f}"


def publish(name: str, rows: Sequence[Row]) -> None:
    """Print the rows, and keep them in results/<name>.json with the facts of the machine."""
    show(rows)
    RESULTS.mkdir(exist_ok=True)
    kept = {
        "benchmark": name,
        "at": datetime.fromtimestamp(datetime.now(UTC).timestamp() // 1, UTC).isoformat(),  # noqa: TID251 - an edge
        "machine": machine(),
        "rows": [asdict(row) | {"verdict": row.verdict} for row in rows],
    }
    text = json.dumps(kept, indent=2) + "\n"
    (RESULTS / f"{name}.json").write_text(text)


def show(rows: Sequence[Row]) -> None:
    for row in rows:
        target = (
            "" if row.target is None else f"{'≥' if row.more_is_better else '≤'} {row.target:g}"
        )
        print(
            f"{row.question:58} {row.value:>9,.4g} {row.unit:12} {target:>8}  {row.verdict}",
            flush=True,
        )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of *values* that at least *share* of them do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def on_cores(count: int) -> None:
    """Confine this process, and all that it will start, to *count* cores."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:count])


def machine() -> dict[str, Any]:
    """What the numbers depend on; no names, no paths."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "cores_of_the_machine": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "processor": _processor(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
