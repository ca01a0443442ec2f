"""Amounts and durations as people write them: ``500m``, ``64MiB``, ``1h30m``.

Each reader takes what a job file may hold and returns whole units, or raises ValueError with a
sentence.  Nothing is rounded: what cannot be said exactly is refused.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation

BYTES = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGTP", start=1):
    BYTES |= {_letter + "i": 1024**_power, _letter + "iB": 1024**_power}
    BYTES |= {_letter: 1000**_power, _letter + "B": 1000**_power}
BYTES |= {"k": 1000, "kB": 1000}

SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
SECONDS |= {"d": Decimal(86400)}

_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,9})?"
_CPU = re.compile(rf"({_NUMBER})(m?)", re.ASCII)
_BYTES = re.compile(rf"({_NUMBER}) ?([A-Za-z]{{0,3}})", re.ASCII)
_PART = rf"({_NUMBER})(ms|s|m|h|d)"
_DURATION = re.compile(rf"(?:{_PART})+", re.ASCII)


def millicores(value: object) -> int:
    """``"500m"``, ``0.5``, ``"0.5"`` and ``2`` as thousandths of a core."""
    if isinstance(value, str):
        match = _CPU.fullmatch(value)
        if match is None:
            raise ValueError("is not an amount of cpu")
        amount = Decimal(match[1]) * (1 if match[2] else 1000)
    else:
        amount = _number(value, "an amount of cpu") * 1000
    return _whole(amount, "must be whole thousandths of a core")


def byte_count(value: object) -> int:
    """``"64MiB"``, ``"1.5GB"`` and ``1048576`` as bytes."""
    if not isinstance(value, str):
        return _whole(_number(value, "an amount of bytes"), "must be whole bytes")
    match = _BYTES.fullmatch(value)
    if match is None:
        raise ValueError("is not an amount of bytes")
    if match[2] not in BYTES:
        raise ValueError(f"has the unknown unit {match[2]!r}")
    return _whole(Decimal(match[1]) * BYTES[match[2]], "must be whole bytes")


def seconds(value: object) -> float:
    """``"10m"``, ``"1h30m"``, ``"250ms"``, ``"90"`` and ``90`` as seconds."""
    if isinstance(value, str):
        if re.fullmatch(_NUMBER, value, re.ASCII):
            value += "s"
        if _DURATION.fullmatch(value) is None:
            raise ValueError("is not a duration")
        parts = re.findall(_PART, value)
        units = [list(SECONDS).index(unit) for _, unit in parts]
        if units != sorted(set(units), reverse=True):
            raise ValueError("must name each unit once, the largest first")
        amount = sum((Decimal(n) * SECONDS[unit] for n, unit in parts), Decimal(0))
    else:
        amount = _number(value, "a duration")
    if amount < 0:
        raise ValueError("must not be negative")
    return float(_whole(amount * 1000, "must be whole milliseconds")) / 1000


def duration(seconds: float) -> str:
    """The text that is read as *seconds*: ``10m``, ``1h30m``, ``250ms``."""
    left, parts = Decimal(round(seconds * 1000)) / 1000, []
    for unit, size in reversed(SECONDS.items()):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


def _number(value: object, what: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"is not {what}")
    if not math.isfinite(value) or abs(value) >= 10**18:
        raise ValueError("is too large")
    try:
        return Decimal(repr(value))
    except InvalidOperation:
        raise ValueError(f"is not {what}") from None


def _whole(amount: Decimal, otherwise: str) -> int:
    if amount != amount.to_integral_value():
        raise ValueError(otherwise)
    return int(amount)
