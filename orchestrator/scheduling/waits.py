"""Since when which slots of a job have had no place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from .slot_set import has, with_slots

MOST = 4
"""Instants that are told apart; what begins to wait later counts from the last of them."""


@dataclass(frozen=True, slots=True)
class Wait:
    """These ``slots``, a set as in ``slot_set``, have had no place ``since`` then; None is any."""

    since: datetime
    slots: bytes | None = None

    def holds(self, slot: int) -> bool:
        return self.slots is None or has(self.slots, slot)


Waits = tuple[Wait, ...]


def of_any(before: Waits, now: datetime, *, unplaced: bool, uncertain: bool) -> Waits:
    """The same when nobody asks which slot it is: since when not all have had one."""
    if before and (unplaced or uncertain):
        return (Wait(before[0].since),)
    return (Wait(now),) if unplaced else ()


def after(
    before: Waits, now: datetime, unplaced: Collection[int], uncertain: Iterable[int]
) -> Waits:
    """What waits at *now*: the *unplaced*, and of the *uncertain* those that waited *before*.

    The place of an uncertain one may still be refused, and it has waited all along then.
    """
    left = dict.fromkeys([*unplaced, *uncertain])
    found: list[Wait] = []
    for wait in before:
        if slots := [slot for slot in left if wait.holds(slot)]:
            found.append(Wait(wait.since, with_slots(b"", slots)))
            for slot in slots:
                del left[slot]
    if new := [slot for slot in unplaced if slot in left]:
        found.append(Wait(now, with_slots(b"", new)))
    if len(found) <= MOST:
        return tuple(found)
    *first, last, newest = found  # Together from the later instant: none is given up too early.
    size = max(len(last.slots or b""), len(newest.slots or b""))
    both = int.from_bytes(last.slots or b"", "little")
    both |= int.from_bytes(newest.slots or b"", "little")
    return (*first, Wait(newest.since, both.to_bytes(size, "little")))


def longest(waits: Waits, slots: Sequence[int]) -> datetime | None:
    """Since when that of *slots* has waited which has waited longest."""
    return min((it.since for it in waits if any(map(it.holds, slots))), default=None)
