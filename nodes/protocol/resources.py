"""What a task needs and a node offers, in whole units so that sums are exact."""

from __future__ import annotations

import msgspec

DIMENSIONS = ("cpu", "memory", "disk", "gpu")


class Resources(msgspec.Struct, frozen=True, omit_defaults=True):
    """An amount of each dimension: cpu in millicores, memory and disk in bytes, gpu in devices."""

    cpu: int = 0
    memory: int = 0
    disk: int = 0
    gpu: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(*(a + b for a, b in zip(self.astuple(), other.astuple(), strict=True)))

    def __sub__(self, other: Resources) -> Resources:
        return Resources(*(a - b for a, b in zip(self.astuple(), other.astuple(), strict=True)))

    def astuple(self) -> tuple[int, int, int, int]:
        """The amounts in the order of DIMENSIONS."""
        return (self.cpu, self.memory, self.disk, self.gpu)

    def fits(self, free: Resources) -> bool:
        """Whether *free* has at least this much of every dimension."""
        return not self.shortfalls(free)

    def shortfalls(self, free: Resources) -> dict[str, int]:
        """How much of each dimension *free* lacks; empty when this fits."""
        pairs = zip(DIMENSIONS, self.astuple(), free.astuple(), strict=True)
        return {name: need - has for name, need, has in pairs if need > has}
