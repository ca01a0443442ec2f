"""Which faults are tried: first the places are counted, then there is a plan for each of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

from tests.agent.faults.story import ROLES, Plan, Story

ERRORS = ("ENOSPC", "ENOSPC, on and on", "EIO")
_DIE = {
    "agent": ("nobody else", "the spawner too", "everybody"),
    "spawner": ("nobody else", "the agent too", "everybody"),
    "supervisor": ("nobody else", "the agent too", "everybody"),
    "both": ("nobody else", "the agent too", "everybody"),
}
_MEET_ERRORS = {
    "agent": ("nobody else",),
    "spawner": ("nobody else",),
    "supervisor": ("nobody else", "the agent, while all run"),
    "both": ("nobody else",),
}
#: Of calls that are made more often than this every other place gets an error, one of the three in
#: turn; of others each place gets each.
_MANY = 10
#: Of calls that are made very often, as while the ledger takes its room, so many places are tried.
_PLACES = 100

Places = dict[str, dict[str, list[int]]]


async def count(directory: Path) -> Places:
    """The places of each role, call by call, by a run in which nothing fails."""
    places = {}
    for role in ROLES:
        verdict = await Story(Plan(role), directory / f"counting-{role}").tell()
        assert not verdict.found, (role, verdict.found)
        places[role] = verdict.places
    return places


def plans(places: Places) -> list[Plan]:
    """A plan for each place and fault; every other restart of the machine loses unsynced data."""
    synced = itertools.cycle((True, False))
    return [
        Plan(role, call, fault, at, dies, next(synced))
        for role, calls in places.items()
        for call, numbers in calls.items()
        for index, at in enumerate(numbers[:: math.ceil(len(numbers) / _PLACES)])
        for fault, dies in _faults(role, index, is_one_of_many=len(numbers) > _MANY)
    ]


def _faults(role: str, index: int, *, is_one_of_many: bool) -> Iterator[tuple[str, str]]:
    killed, errors = _DIE[role], ERRORS
    if role == "agent":  # Its places are so many that each has one company to die in, in turn.
        killed = (killed[index % len(killed)],)
    if is_one_of_many:
        errors = () if index % 2 else (errors[index // 2 % len(errors)],)
    yield from itertools.product(("KILL",), killed)
    yield from itertools.product(errors, _MEET_ERRORS[role])
