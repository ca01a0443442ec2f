"""Which faults are tried: first the places are counted, then there is a plan for each of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from tests.agent.faults.joining import Joining
from tests.agent.faults.story import ROLES, Plan, Story, Verdict

ERRORS = ("ENOSPC", "ENOSPC, on and on", "EIO")
_DIE = {
    "joining": ("nobody else",),
    "agent": ("nobody else", "the spawner too", "everybody"),
    "spawner": ("nobody else", "the agent too", "everybody"),
    "supervisor": ("nobody else", "the agent too", "everybody"),
    "both": ("nobody else", "the agent too", "everybody"),
}
_MEET_ERRORS = {
    "joining": ("nobody else",),
    "agent": ("nobody else",),
    "spawner": ("nobody else",),
    "supervisor": ("nobody else", "the agent, while all run"),
    "both": ("nobody else",),
}
#: In a stretch of more calls than this, as while the ledger takes its room, so many are tried: the
#: first and last of them, and between these some at even distances.
_LONG = 20
#: Of calls that are made at more places than this each place gets one error, the three in turn.
_MANY = 10

Places = dict[str, dict[str, list[list[int]]]]


async def count(directory: Path) -> Places:
    """The places of each role, call by call, by a run in which nothing fails."""
    places = {}
    for role in ("joining", *ROLES):
        verdict = await tell(Plan(role), directory / f"counting-{role}")
        assert not verdict.found, (role, verdict.found)
        places[role] = verdict.places
    return places


async def tell(plan: Plan, place: Path) -> Verdict:
    """What became of an agent that joins, or of one that has joined and is at work."""
    return await (Joining if plan.role == "joining" else Story)(plan, place).tell()


def plans(places: Places) -> list[Plan]:
    """A plan for each place and fault; every other restart of the machine loses unsynced data."""
    return [
        Plan(role, call, fault, at, dies, is_synced=(index + number) % 2 == 0)
        for role, calls in places.items()
        for call, stretches in calls.items()
        for tried in (_tried(stretches),)
        for index, at in enumerate(sorted(tried))
        for number, (fault, dies) in enumerate(
            _faults(role, index, tried[at], is_one_of_many=len(tried) > _MANY)
        )
    ]


def number_of(stretches: list[list[int]]) -> int:
    """At how many places a call is made."""
    return len({at for stretch in stretches for at in stretch})


def _tried(stretches: list[list[int]]) -> dict[int, bool]:
    """The places that are tried, and whether each stands for others of a long stretch."""
    tried: dict[int, bool] = {}
    for stretch in stretches:
        few, is_long = _LONG // 4, len(stretch) > _LONG
        middle = stretch[few:-few]
        step = len(middle) // (2 * few) if is_long else 1
        for at in (*stretch[:few], *middle[::step], *stretch[-few:]):
            tried[at] = is_long and tried.get(at, True)
    return tried


def _faults(
    role: str, index: int, is_of_long: bool, *, is_one_of_many: bool
) -> Iterator[tuple[str, str]]:
    killed, errors = _DIE[role], ERRORS
    if is_of_long:  # Each of them has one company to die in, in turn.
        killed = (killed[index % len(killed)],)
    if is_one_of_many:
        errors = (errors[index % len(errors)],)
    yield from itertools.product(("KILL",), killed)
    yield from itertools.product(errors, _MEET_ERRORS[role])
