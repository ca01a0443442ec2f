"""Why a node cannot run a task: for one node as sentences, for all nodes as columns."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nodes import readiness
from nodes.labels import OWN
from nodes.protocol.resources import DIMENSIONS, Resources
from orchestrator.explain.formatting import named
from orchestrator.spec import JobBody
from orchestrator.spec.selectors import Requirement

from .world import Bools, Ints, Nodes, Room

#: Which drivers a node has is its own word.
DRIVER = f"{OWN}driver."
#: Entries of a memo above which it is begun anew.
MOST_MEMOS = 1024
_LEAST = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Demand:
    """What one execution demands of its node."""

    need: Resources
    driver: str
    requirements: tuple[Requirement, ...] = ()

    @property
    def driver_label(self) -> str:
        return f"{DRIVER}{self.driver}"


def demand(spec: JobBody) -> Demand:
    return Demand(spec.resources, spec.task.driver, spec.requirements)


def refusal(room: Room, row: int, wanted: Demand) -> str | None:
    """Why the node in *row* cannot run it now, or None if it can; the first reason of all."""
    return next(iter(refusals(room, row, wanted)), None)


def refusals(room: Room, row: int, wanted: Demand) -> list[str]:
    """Every reason why the node in *row* cannot run it now, not only the first."""
    found = [] if room.nodes.ready[row] else [room.nodes.unready[row] or "takes no new work"]
    labels = room.nodes.labels[row]
    if labels.get(wanted.driver_label) != "true":
        have = [it.removeprefix(DRIVER) for it in sorted(labels) if it.startswith(DRIVER)]
        found.append(f"has no driver {wanted.driver}, it has {', '.join(have) or 'none'}")
    for requirement in wanted.requirements:
        if not requirement.matches(labels):
            value = labels.get(requirement.key)
            has = f"no label {requirement.key}" if value is None else f"{requirement.key} = {value}"
            if value is None and OWN + requirement.key in labels:
                has += f" (only {OWN}{requirement.key}, its own word)"
            found.append(f"has {has}, needs {requirement}")
    free, whole = room.free[row], empty(room.nodes)[row]
    offered = room.nodes.offered[row]
    for d in np.flatnonzero(~enough(free, wanted.need) | ~enough(whole, wanted.need)).tolist():
        name, need = DIMENSIONS[d], wanted.need.astuple()[d]
        if need <= whole[d]:
            found.append(f"has {named(name, int(free[d]))} free, needs {named(name, need)}")
            continue
        said = f"has {named(name, int(whole[d]))} in all, needs {named(name, need)}"
        if offered[d] > whole[d]:
            more = named(name, int(offered[d]))
            said += f" (offers {more}: `muster node approve` accepts that)"
        found.append(said)
    return found


def enough(amounts: Ints, need: Resources) -> Bools:
    """Which of *amounts*, in columns by dimension, suffice.  What needs nothing has enough."""
    wanted = np.array(need.astuple(), dtype=np.int64)
    return np.asarray(amounts >= np.where(wanted > 0, wanted, _LEAST), dtype=np.bool_)


def fits(room: Room, wanted: Demand) -> Bools:
    """Which nodes can run it now."""
    return (
        enough(room.free, wanted.need).all(axis=1) & suitable(room.nodes, wanted) & room.nodes.ready
    )


def empty(nodes: Nodes) -> Ints:
    """What the nodes could give if they ran nothing.

    The capacity of a node that has shrunk is what is allocated on it still.
    """
    return np.minimum(nodes.capacity, nodes.offered)


def suitable(nodes: Nodes, wanted: Demand) -> Bools:
    """Which nodes have the driver and satisfy the constraints, ready or not."""
    key = ("suitable", wanted.driver, wanted.requirements)
    mask: Bools | None = nodes.memo.get(key)
    if mask is None:
        mask = has_driver(nodes, wanted) & as_wanted(nodes, wanted.requirements)
        remember(nodes.memo, key, mask)
    return mask


def as_wanted(nodes: Nodes, requirements: tuple[Requirement, ...]) -> Bools:
    """Which nodes satisfy all constraints, ready or not."""
    mask: Bools | None = nodes.memo.get(requirements)
    if mask is None:
        mask = np.ones(len(nodes.ids), dtype=np.bool_)
        for requirement in requirements:
            mask &= satisfying(nodes, requirement)
        remember(nodes.memo, requirements, mask)
    return mask


def has_driver(nodes: Nodes, wanted: Demand) -> Bools:
    return satisfying(nodes, Requirement(wanted.driver_label, "=", ("true",)))


def satisfying(nodes: Nodes, requirement: Requirement) -> Bools:
    """Which nodes satisfy *requirement*; each distinct value of the label is judged once."""
    mask: Bools | None = nodes.memo.get(requirement)
    if mask is None:
        values = [labels.get(requirement.key) for labels in nodes.labels]
        verdict = {value: requirement.holds(value) for value in set(values)}
        mask = np.array([verdict[value] for value in values], dtype=np.bool_)
        remember(nodes.memo, requirement, mask)
    return mask


def lasting(nodes: Nodes) -> Bools:
    """Which nodes take work now or may do so again."""
    mask: Bools | None = nodes.memo.get("lasting")
    if mask is None:
        mask = np.array([why not in readiness.FINAL for why in nodes.unready], dtype=np.bool_)
        remember(nodes.memo, "lasting", mask)
    return mask


def large_enough(nodes: Nodes, need: Resources) -> Bools:
    """Which nodes could hold *need* if they were empty."""
    return np.asarray(enough(empty(nodes), need).all(axis=1), dtype=np.bool_)


def remember(memo: dict[Hashable, Any], key: Hashable, value: object) -> None:
    """Keep *value* in *memo* for the decisions to come."""
    if len(memo) >= MOST_MEMOS:
        memo.clear()
    memo[key] = value
