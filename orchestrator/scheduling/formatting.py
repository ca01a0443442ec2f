"""Amounts and counts as people read them."""

from __future__ import annotations

from datetime import datetime

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def amount(dimension: str, value: int) -> str:
    """``512 MiB memory``, ``500m cpu``, ``2 gpu``."""
    if dimension == "cpu":
        return f"{value // 1000 if value % 1000 == 0 else f'{value}m'} cpu"
    if dimension == "gpu":
        return f"{value} gpu"
    return f"{size(value)} {dimension}"


def size(value: int) -> str:
    """Bytes in the largest unit that leaves at least one, with one decimal where it says more."""
    scaled, unit = float(value), _UNITS[0]
    for unit in _UNITS:
        if abs(scaled) < 1024 or unit == _UNITS[-1]:
            break
        scaled /= 1024
    return f"{scaled:.1f}".removesuffix(".0") + f" {unit}"


def counted(number: int, noun: str) -> str:
    """``1 slot``, ``2 slots``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clock(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")
