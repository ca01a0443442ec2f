"""Since when which slots of a job have had no place."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from .slot_set import has, with_slots

MOST = 4
"""Instants that are told apart; what begins to wait later counts from the last of them."""


@dataclass(frozen=True, slots=True)
class Wait:
    """These ``slots``, a set as in ``slot_set``, have had no place ``since`` then.

    None is of an earlier release, which did not tell which.
    """

    since: datetime
    slots: bytes | None = None

    def holds(self, slot: int) -> bool:
        return self.slots is None or has(self.slots, slot)


Waits = tuple[Wait, ...]


def after(
    before: Waits, now: datetime, unplaced: Collection[int], uncertain: Collection[int]
) -> Waits:
    """What waits at *now*: the *unplaced*, and of the *uncertain* those that waited *before*.

    The place of an uncertain one may still be refused, and it has waited all along then.
    """
    left = dict.fromkeys([*unplaced, *uncertain])
    found: list[tuple[datetime, list[int]]] = []
    for wait in before:
        among = left if wait.slots is not None else uncertain or unplaced
        if slots := [slot for slot in among if slot in left and wait.holds(slot)]:
            found.append((wait.since, slots))
            for slot in slots:
                del left[slot]
    if new := [slot for slot in unplaced if slot in left]:
        found.append((now, new))
    if len(found) > MOST:  # Together from the later instant: none is given up too early.
        *found, (_, last), (since, newest) = found
        found.append((since, last + newest))
    return tuple(Wait(since, with_slots(b"", slots)) for since, slots in found)


def longest(waits: Waits, slots: Sequence[int]) -> datetime | None:
    """Since when that of *slots* has waited which has waited longest."""
    return min((it.since for it in waits if any(map(it.holds, slots))), default=None)
