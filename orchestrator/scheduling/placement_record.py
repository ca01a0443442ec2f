"""Why something could not be placed: the funnel of checks, the nearest misses, the reason."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

import numpy as np

from nodes.protocol.resources import DIMENSIONS, Resources
from orchestrator.explain.reasons import AllClosed, Impossible, Lack, NoNode, NoRoom, Shortage

from .feasibility import (
    Demand,
    empty,
    enough,
    has_driver,
    large_enough,
    lasting,
    refusals,
    remember,
    satisfying,
    suitable,
)
from .plan import Blocked
from .ranking import Floats
from .world import Bools, Room

NEAREST = 5


def record(room: Room, wanted: Demand) -> dict[str, Any]:
    """How many nodes each check leaves, whom only one check holds back, and the nearest misses.

    Every check is counted on its own over all nodes; ``only_blocker`` counts the nodes that
    would do but for this check.  JSON values only.
    """
    key = ("record", wanted)
    stamp = (room.revision, len(room.taken), int(room.allocated.sum()))
    kept: tuple[object, dict[str, Any]] | None = room.memo.get(key)
    if kept is not None and kept[0] == stamp:
        return kept[1]
    made = _record(room, wanted)
    remember(room.memo, key, (stamp, made))
    return made


def blocked(room: Room, wanted: Demand, missing: int, since: datetime) -> Blocked:
    """What could not be met, with whether any node there is ever could."""
    return Blocked(wanted.need, missing, _shortage(room, wanted), since)


def _shortage(room: Room, wanted: Demand) -> Shortage:
    there = lasting(room.nodes)
    if not there.any():
        return NoNode()
    able = there & suitable(room.nodes, wanted) & large_enough(room.nodes, wanted.need)
    return _full(room, wanted, able) if able.any() else _impossible(room, wanted, there)


def _record(room: Room, wanted: Demand) -> dict[str, Any]:
    free = room.free
    need = np.array(wanted.need.astuple(), dtype=np.int64)
    checks: list[tuple[str, Bools]] = [
        ("ready", room.nodes.ready),
        (f"driver {wanted.driver}", has_driver(room.nodes, wanted)),
        *((str(one), satisfying(room.nodes, one)) for one in wanted.requirements),
    ]
    checks += zip(DIMENSIONS, enough(free, wanted.need).T, strict=True)
    failing = np.sum([~passes for _, passes in checks], axis=0)
    alone = failing == 1

    def counts(passes: Bools) -> dict[str, int]:
        return {"pass": int(passes.sum()), "only_blocker": int((alone & ~passes).sum())}

    start = 2 + len(wanted.requirements)
    unready = Counter(why or "takes no new work" for why in room.nodes.unready if why)
    return {
        "known": len(room.nodes.ids),
        "ready": counts(room.nodes.ready),
        "unready": dict(sorted(unready.items())),
        "driver": {"name": wanted.driver, **counts(checks[1][1])},
        "constraints": [{"text": text, **counts(passes)} for text, passes in checks[2:start]],
        "fit": {name: counts(passes) for name, passes in checks[start:]},
        "large_enough": int(large_enough(room.nodes, wanted.need).sum()),
        "eligible": int((room.nodes.ready & suitable(room.nodes, wanted)).sum()),
        "could_run_now": int((failing == 0).sum()),
        "need": dict(zip(DIMENSIONS, wanted.need.astuple(), strict=True)),
        "nearest": _nearest(room, wanted, _shortfalls(free, need), checks[:start]),
    }


def _shortfalls(free: Any, need: Any) -> Floats:
    """For each node the lacking fractions of what is needed, added up."""
    lacking = np.where(need > 0, np.clip(need - free, 0, None), 0) / np.maximum(need, 1)
    return np.asarray(lacking.sum(axis=1), dtype=np.float64)


def _nearest(
    room: Room, wanted: Demand, short: Floats, other: list[tuple[str, Bools]]
) -> list[dict[str, Any]]:
    distance = short + 10.0 * np.sum([~passes for _, passes in other], axis=0)
    misses = np.flatnonzero(distance > 0)
    order = misses[np.argsort(distance[misses], kind="stable")[:NEAREST]]
    free = room.free
    return [
        {
            "node": room.nodes.ids[row],
            "name": room.nodes.names[row],
            "short": wanted.need.shortfalls(Resources(*(int(x) for x in free[row]))),
            "refusals": refusals(room, int(row), wanted),
        }
        for row in order.tolist()
    ]


def _impossible(room: Room, wanted: Demand, there: Bools) -> Impossible:
    known = int(there.sum())
    if not (there & has_driver(room.nodes, wanted)).any():
        return Impossible(known, Lack.DRIVER, wanted.driver)
    for requirement in wanted.requirements:
        if not (there & satisfying(room.nodes, requirement)).any():
            return Impossible(known, Lack.CONSTRAINT, str(requirement))
    able = there & suitable(room.nodes, wanted)
    if not able.any():
        return Impossible(known, Lack.COMBINATION)
    largest = empty(room.nodes)[able].max(axis=0)
    for name, need, most in zip(DIMENSIONS, wanted.need.astuple(), largest.tolist(), strict=True):
        if need > most:
            return Impossible(int(able.sum()), Lack.SIZE, name, need, most)
    return Impossible(known, Lack.SIZES)


def _full(room: Room, wanted: Demand, able: Bools) -> Shortage:
    rows = np.flatnonzero(able & room.nodes.ready)
    if not len(rows):
        closed = Counter(room.nodes.unready[row] for row in np.flatnonzero(able).tolist())
        return AllClosed(int(able.sum()), dict(sorted(closed.items())))
    free = room.free[rows]
    need = np.array(wanted.need.astuple(), dtype=np.int64)
    best = int(_shortfalls(free, need).argmin())
    short = wanted.need.shortfalls(Resources(*(int(x) for x in free[best])))
    return NoRoom(len(rows), dict(short))
