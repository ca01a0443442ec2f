"""Which of the running executions of a large job are looked at one by one.

Of nearly all of them there is nothing to say: they run as they were told.  They stay in columns,
and count as what has its slot and its share of a node.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from .feasibility import as_wanted
from .slot_history import Limits
from .slot_set import flags
from .world import Bools, World

#: From where columns count time, as the database does.
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(instant: datetime) -> int:
    """*instant* as columns have it."""
    return (instant - _EPOCH) // _MICROSECOND


def instant(microseconds: int) -> datetime:
    """The opposite of `microseconds`."""
    return _EPOCH + microseconds * _MICROSECOND


def one_by_one(world: World) -> World:
    """The same world with all its executions as views, as where the job as a whole has ended."""
    return _with_views(world, np.ones(len(world.running), dtype=np.bool_))


def with_exceptions(world: World) -> World:
    """The same world where those are views of which a rule may say something.

    That they have no slot any longer, or not alone; that their node does not suit; or that they
    have run for too long.
    """
    running, job = world.running, world.job
    if not len(running):
        return world
    progress = job.progress.carried(job.round, job.submitted_at)
    shared = np.frombuffer(bytearray(flags(progress.completed, job.count)), dtype=np.uint8)
    shared[[it.slot for it in world.executions if it.slot < job.count]] = 1
    suits = as_wanted(world.nodes, job.spec.requirements)
    return _with_views(
        world,
        # What is at the end stands for slots that are too many, and for nodes that are gone.
        (np.append(shared, 1)[np.minimum(running.slots, job.count)] == 1)
        | ~np.append(suits, True)[running.nodes]
        | (_ends(world) <= microseconds(world.now)),
    )


def next_overrun(world: World) -> datetime | None:
    """When the first of those in columns has run as long as it may."""
    ends = _ends(world)
    if not ends.size or not np.isfinite(soonest := ends.min()):
        return None
    return instant(int(soonest))


def _ends(world: World) -> npt.NDArray[np.float64]:
    """Until when each of those in columns may run, in microseconds; for ever where no limit is."""
    running = world.running
    limits = Limits.of(world) if len(running) else None
    ends = np.full(len(running), np.inf)
    if limits is None:
        return ends
    for version in np.unique(running.versions).tolist():
        limit = limits.by_version.get(version, limits.newest)
        if limit is not None:
            of_version = running.versions == version
            ends[of_version] = running.started[of_version] + limit // _MICROSECOND
    return ends


def _with_views(world: World, which: Bools) -> World:
    if not which.any():
        return world
    views = [world.running.view(row) for row in np.flatnonzero(which).tolist()]
    executions = sorted((*world.executions, *views), key=lambda it: it.id)
    return replace(world, executions=tuple(executions), running=world.running.only(~which))
