"""Why a node cannot run a task: for one node as sentences, for all nodes as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nodes.protocol.resources import DIMENSIONS, Resources
from orchestrator.explain.formatting import named
from orchestrator.spec import JobSpec
from orchestrator.spec.selectors import Requirement

from .world import Bools, Cluster, dimensions

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
        return f"driver.{self.driver}"


def demand(spec: JobSpec) -> Demand:
    return Demand(spec.resources, spec.task.driver, spec.requirements)


def refusal(cluster: Cluster, row: int, wanted: Demand) -> str | None:
    """Why the node in *row* cannot run it now, or None if it can; the first reason of all."""
    return next(iter(refusals(cluster, row, wanted)), None)


def refusals(cluster: Cluster, row: int, wanted: Demand) -> list[str]:
    """Every reason why the node in *row* cannot run it now, not only the first."""
    found = [] if cluster.ready[row] else [cluster.unready[row] or "takes no new work"]
    labels = cluster.labels[row]
    if labels.get(wanted.driver_label) != "true":
        have = [key[7:] for key in sorted(labels) if key.startswith("driver.")]
        found.append(f"has no driver {wanted.driver}, it has {', '.join(have) or 'none'}")
    for requirement in wanted.requirements:
        if not requirement.matches(labels):
            value = labels.get(requirement.key)
            has = f"no label {requirement.key}" if value is None else f"{requirement.key} = {value}"
            found.append(f"has {has}, needs {requirement}")
    capacity = dimensions(cluster.capacity[row])
    allocated = dimensions(cluster.allocated[row])
    for name, need in zip(DIMENSIONS, wanted.need.astuple(), strict=True):
        free = capacity[name] - allocated[name]
        if need > capacity[name]:
            found.append(f"has {named(name, capacity[name])} in all, needs {named(name, need)}")
        elif need > free:
            found.append(f"has {named(name, free)} free, needs {named(name, need)}")
    return found


def suitable(cluster: Cluster, wanted: Demand) -> Bools:
    """Which nodes have the driver and satisfy the constraints, ready or not."""
    key = ("suitable", wanted.driver, wanted.requirements)
    mask: Bools | None = cluster.memo.get(key)
    if mask is None:
        mask = has_driver(cluster, wanted).copy()
        for requirement in wanted.requirements:
            mask &= satisfying(cluster, requirement)
        remember(cluster, key, mask)
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
