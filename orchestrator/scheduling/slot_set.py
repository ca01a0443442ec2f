"""Sets of slots as bits, so that which slots of a job have completed is small in any order.

Bit *n* of the set is slot *n*, the lowest bit of a byte first.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def with_slots(bits: bytes, slots: Iterable[int]) -> bytes:
    """*bits* and *slots* together."""
    found = bytearray(bits)
    for slot in slots:
        if slot >= len(found) * 8:
            found.extend(bytes(slot // 8 + 1 - len(found)))
        found[slot // 8] |= 1 << slot % 8
    return bytes(found)


def has(bits: bytes, slot: int) -> bool:
    """Whether *slot* is in the set."""
    return slot < len(bits) * 8 and bool(bits[slot // 8] >> slot % 8 & 1)


def flags(bits: bytes, count: int) -> bytes:
    """A byte for each of the first *count* slots, 1 when it is in the set."""
    whole = np.frombuffer(bits.ljust(-(-count // 8), b"\0"), dtype=np.uint8)
    return np.unpackbits(whole, bitorder="little", count=count).tobytes()


def of_ranges(ranges: Iterable[Iterable[int]]) -> bytes:
    """The set of all slots from the first to the last of each of *ranges*."""
    return with_slots(b"", (slot for first, last in ranges for slot in range(first, last + 1)))
