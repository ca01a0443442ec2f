"""Amounts, durations, instants, counts and people as sentences say them, in one place.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def duration(seconds: float) -> str:
    """The two largest units that matter: ``340 ms``, ``4.2 s``, ``3 min 05 s``, ``2 d 4 h``."""
    if seconds < 0:
        return "0 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(amount: int) -> str:
    """Bytes in the unit that keeps the number short: ``1.5 GiB``."""
    value, unit = float(amount), 0
    while value >= 1024 and unit < len(_BYTES) - 1:
        value, unit = value / 1024, unit + 1
    return f"{_short(value)} {_BYTES[unit]}"


def amount(dimension: str, value: int) -> str:
    """An amount of one dimension: millicores, bytes or devices, in words."""
    if dimension == "cpu":
        return f"{cores(value)} {'core' if value == 1000 else 'cores'}"
    if dimension == "gpu":
        return counted(value, "GPU", "GPUs")
    return size(value)


def cores(millicores: int) -> str:
    """The number of cores alone: ``0.25``."""
    return f"{millicores / 1000:.3f}".rstrip("0").rstrip(".")


def named(dimension: str, value: int) -> str:
    """An amount that says what it is an amount of: ``512 MiB memory``, ``2 cores``."""
    said = amount(dimension, value)
    return said if dimension in {"cpu", "gpu"} else f"{said} {dimension}"


def of(dimension: str, part: int, whole: int) -> str:
    """A part and the whole: ``5.8 of 16 cores``; the unit is said once where it is the same."""
    first, all_of = amount(dimension, part), amount(dimension, whole)
    number, _, unit = first.partition(" ")
    same = dimension == "cpu" or unit == all_of.partition(" ")[2]
    return f"{number if same else first} of {all_of}"


def amounts(needs: Mapping[str, int]) -> str:
    """All dimensions that are not zero: ``2 cores, 512 MiB memory``."""
    return ", ".join(named(name, value) for name, value in needs.items() if value) or "nothing"


def counted(n: int, one: str, many: str | None = None) -> str:
    """A number with its noun: ``1 node``, ``1,204 nodes``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def capped(n: int, cap: int) -> str:
    """A count that was taken with a bound says so: ``10,000+``."""
    return f"{cap:,}+" if n >= cap else f"{n:,}"


def listed(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def capitalised(sentence: str) -> str:
    """The first letter raised, the rest left alone."""
    return sentence[:1].upper() + sentence[1:]


def full_stop(text: str) -> str:
    """*text* with an end, if it has none."""
    return text if not text or text.endswith((".", "!", "?", "…")) else f"{text}."


def clock(at: datetime) -> str:
    """An instant that needs no page to be read: ``2026-03-01 12:00:40 UTC``."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def person(actor: str) -> str:
    """Who did it: ``user:ana`` is ana."""
    return actor.partition(":")[2] or actor


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"
