"""Why a node cannot run a task: for one node as sentences, for all nodes as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nodes.labels import OWN
from nodes.protocol.resources import DIMENSIONS, Resources
from orchestrator.explain.formatting import named
from orchestrator.spec import JobBody
from orchestrator.spec.selectors import Requirement

from .world import Bools, Cluster, dimensions

#: Which drivers a node has is its own word.
DRIVER = f"{OWN}driver."
#: Entries of a cluster's memo above which it is begun anew.
MOST_MEMOS = 1024


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


def refusal(cluster: Cluster, row: int, wanted: Demand) -> str | None:
    """Why the node in *row* cannot run it now, or None if it can; the first reason of all."""
    return next(iter(refusals(cluster, row, wanted)), None)


def refusals(cluster: Cluster, row: int, wanted: Demand) -> list[str]:
    """Every reason why the node in *row* cannot run it now, not only the first."""
    found = [] if cluster.ready[row] else [cluster.unready[row] or "takes no new work"]
    labels = cluster.labels[row]
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
    capacity = dimensions(cluster.capacity[row])
    allocated = dimensions(cluster.allocated[row])
    offered = capacity if cluster.offered is None else dimensions(cluster.offered[row])
    grown = {name: amount for name, amount in offered.items() if amount > capacity[name]}
    for name, need in zip(DIMENSIONS, wanted.need.astuple(), strict=True):
        free = capacity[name] - allocated[name]
        if need > capacity[name]:
            said = f"has {named(name, capacity[name])} in all, needs {named(name, need)}"
            if name in grown:
                said += f" (offers {named(name, grown[name])}: `muster node approve` accepts that)"
            found.append(said)
        elif need > free:
            found.append(f"has {named(name, free)} free, needs {named(name, need)}")
    return found


def suitable(cluster: Cluster, wanted: Demand) -> Bools:
    """Which nodes have the driver and satisfy the constraints, ready or not."""
    key = ("suitable", wanted.driver, wanted.requirements)
    mask: Bools | None = cluster.memo.get(key)
    if mask is None:
        mask = has_driver(cluster, wanted) & as_wanted(cluster, wanted.requirements)
        remember(cluster, key, mask)
    return mask


def as_wanted(cluster: Cluster, requirements: tuple[Requirement, ...]) -> Bools:
    """Which nodes satisfy all constraints, ready or not."""
    mask: Bools | None = cluster.memo.get(requirements)
    if mask is None:
        mask = np.ones(len(cluster.ids), dtype=np.bool_)
        for requirement in requirements:
            mask &= satisfying(cluster, requirement)
        remember(cluster, requirements, mask)
    return mask


def has_driver(cluster: Cluster, wanted: Demand) -> Bools:
    return satisfying(cluster, Requirement(wanted.driver_label, "=", ("true",)))


def satisfying(cluster: Cluster, requirement: Requirement) -> Bools:
    """Which nodes satisfy *requirement*; each distinct value of the label is judged once."""
    mask: Bools | None = cluster.memo.get(requirement)
    if mask is None:
        values = [labels.get(requirement.key) for labels in cluster.labels]
        verdict = {value: requirement.holds(value) for value in set(values)}
        mask = np.array([verdict[value] for value in values], dtype=np.bool_)
        remember(cluster, requirement, mask)
    return mask


def large_enough(cluster: Cluster, need: Resources) -> Bools:
    """Which nodes could hold *need* if they were empty."""
    amounts = np.array(need.astuple(), dtype=np.int64)
    return np.asarray((cluster.capacity >= amounts).all(axis=1), dtype=np.bool_)


def remember(cluster: Cluster, key: object, value: object) -> None:
    """Keep *value* for the next decisions about the same cluster."""
    if len(cluster.memo) >= MOST_MEMOS:
        cluster.memo.clear()
    cluster.memo[key] = value
