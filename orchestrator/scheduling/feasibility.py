"""Why a node cannot run a task: for one node as sentences, for all nodes as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nodes import readiness
from nodes.labels import OWN
from nodes.protocol.resources import DIMENSIONS, Resources
from orchestrator.explain.formatting import named
from orchestrator.spec import JobBody
from orchestrator.spec.selectors import Requirement

from .world import Bools, Cluster, Ints

#: Which drivers a node has is its own word.
DRIVER = f"{OWN}driver."
#: Entries of a cluster's memo above which it is begun anew.
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
    free, whole = cluster.free[row], empty(cluster)[row]
    offered = whole if cluster.offered is None else cluster.offered[row]
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


def fits(cluster: Cluster, wanted: Demand) -> Bools:
    """Which nodes can run it now."""
    return enough(cluster.free, wanted.need).all(axis=1) & suitable(cluster, wanted) & cluster.ready


def empty(cluster: Cluster) -> Ints:
    """What the nodes could give if they ran nothing.

    The capacity of a node that has shrunk is what is allocated on it still.
    """
    if cluster.offered is None:
        return cluster.capacity
    return np.minimum(cluster.capacity, cluster.offered)


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


def lasting(cluster: Cluster) -> Bools:
    """Which nodes take work now or may do so again."""
    mask: Bools | None = cluster.memo.get("lasting")
    if mask is None:
        mask = np.array([why not in readiness.FINAL for why in cluster.unready], dtype=np.bool_)
        remember(cluster, "lasting", mask)
    return mask


def large_enough(cluster: Cluster, need: Resources) -> Bools:
    """Which nodes could hold *need* if they were empty."""
    return np.asarray(enough(empty(cluster), need).all(axis=1), dtype=np.bool_)


def remember(cluster: Cluster, key: object, value: object) -> None:
    """Keep *value* for the next decisions about the same cluster."""
    if len(cluster.memo) >= MOST_MEMOS:
        cluster.memo.clear()
    cluster.memo[key] = value
