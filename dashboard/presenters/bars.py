"""Bars, strips and sparklines as numbers that an SVG takes as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.explain.formatting import amount, of

from .states import ORDER

WIDTH = 100.0
LEAST = 2.5
"""No part of a bar is narrower than this, or it could not be seen."""


@dataclass(frozen=True, slots=True)
class Part:
    look: str
    x: float
    width: float
    title: str


@dataclass(frozen=True, slots=True)
class Bar:
    """Parts of a hundred, and the same said in words."""

    parts: tuple[Part, ...]
    label: str


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much of one dimension is allocated."""

    name: str
    said: str
    total: str
    free: str
    percent: int
    width: float
    hot: bool


@dataclass(frozen=True, slots=True)
class Spark:
    """A polyline over 96 by 24, and its last point."""

    points: str
    x: float
    y: float
    title: str


def bar(counts: Mapping[str, int], words: Mapping[str, str] | None = None) -> Bar:
    """A bar of *counts* by look; the label names all that are not zero."""
    found = [(look, counts[look]) for look in ORDER if counts.get(look)]
    words = words or {}
    said = [f"{n:,} {words.get(look, _WORDS[look])}" for look, n in found]
    parts = []
    x = 0.0
    for (look, _), width, title in zip(found, _widths([n for _, n in found]), said, strict=True):
        parts.append(Part(look, round(x, 2), round(width, 2), title))
        x += width
    return Bar(tuple(parts), ", ".join(said) or "nothing yet")


def capacity(name: str, allocated: int, total: int) -> Capacity:
    """The bar of one dimension."""
    part = allocated / total if total else 0.0
    return Capacity(
        name=name,
        said=of(name, allocated, total),
        total=amount(name, total),
        free=amount(name, max(0, total - allocated)),
        percent=round(100 * part),
        width=round(WIDTH * min(part, 1.0), 2),
        hot=part > 0.9,
    )


def spark(values: Sequence[float], title: str) -> Spark:
    """A sparkline with its zero at the bottom."""
    top = max([*values, 1])
    step = 94 / max(len(values) - 1, 1)
    dots = [(round(1 + i * step, 1), round(22 - 20 * v / top, 1)) for i, v in enumerate(values)]
    x, y = dots[-1] if dots else (1.0, 22.0)
    return Spark(" ".join(f"{a},{b}" for a, b in dots), x, y, title)


_WORDS = {
    "ok": "completed",
    "running": "running",
    "starting": "starting",
    "waiting": "waiting",
    "blocked": "blocked",
    "failed": "failed",
    "lost": "lost",
    "stopped": "stopped",
}


def _widths(counts: Sequence[int]) -> list[float]:
    """Shares of a hundred in proportion, none below LEAST."""
    total = sum(counts)
    raised = [max(LEAST, WIDTH * n / total) for n in counts]
    surplus = sum(raised) - WIDTH
    room = sum(width - LEAST for width in raised)
    if surplus <= 0 or room <= 0:
        return raised
    return [width - surplus * (width - LEAST) / room for width in raised]
