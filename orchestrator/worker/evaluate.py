"""The Worker: lease, world, plan, acknowledge.  What a django-q2 worker does with a pull ticket."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from django.db import Error, InterfaceError, OperationalError, connection

from orchestrator import broker
from orchestrator.planners.state_updater import Decision, apply
from orchestrator.scheduling.slot_scheduler import schedule
from orchestrator.scheduling.world import Room, World

from . import snapshot
from .heartbeat import Heartbeat
from .worker_id import WorkerId

log = logging.getLogger(__name__)

#: Seconds after which a pull ends, so that its process can be recycled or serve other tasks.
PULL = 5.0

#: Jobs in one group, and how long a group should take at most.
SMALLEST, LARGEST = 1, 64
BRISK = 0.5


class Worker:
    """One process that evaluates."""

    def __init__(self, identity: WorkerId, stopping: Callable[[], bool] = lambda: False) -> None:
        self.evaluated = 0
        self._stopping = stopping
        self.heartbeat = Heartbeat(identity, lambda: self.evaluated)
        self._view = snapshot.ClusterView()
        self._size = 8

    @property
    def name(self) -> str:
        return self.heartbeat.identity.name

    def pull(self, seconds: float = PULL) -> int:
        """Evaluate what is ready until nothing is or *seconds* have gone; how many."""
        before, end = self.evaluated, time.monotonic() + seconds
        try:
            self._pull(end)
        except Error as error:
            log.warning("a pull ended because the database does not answer: %s", error)
            self._leave_behind()
        return self.evaluated - before

    def _pull(self, end: float) -> None:
        while not self._stopping() and time.monotonic() < end:
            began = time.monotonic()
            leases = broker.lease(None, self._size, self.name)
            if not leases:
                break
            with self.heartbeat.holding(leases):
                self._evaluate(leases)
            self.evaluated += len(leases)
            self._adapt(len(leases), time.monotonic() - began)

    def _leave_behind(self) -> None:
        """Go on under another name: what this one has leased, known or not, is given back."""
        connection.close()
        self.heartbeat.be(WorkerId.mine())

    def _adapt(self, leased: int, took: float) -> None:
        """Larger groups share queries and commits; slow ones keep priority from being exact."""
        if took > BRISK:
            self._size = max(SMALLEST, self._size // 2)
        elif leased == self._size:
            self._size = min(LARGEST, self._size * 2)

    def _evaluate(self, leases: Sequence[broker.Lease]) -> None:
        worlds = self._worlds(leases, self._view.refresh())
        self._commit(self._decide(leases, worlds))

    def _worlds(
        self, leases: Sequence[broker.Lease], room: Room
    ) -> Sequence[World | Exception | None]:
        """A world for each lease, or why there is none."""
        try:
            return snapshot.worlds(leases, room)
        except Error:
            raise
        except Exception as error:  # noqa: BLE001 - a job that cannot be read is given back alone.
            if len(leases) == 1:
                return [error]
            return [world for one in leases for world in self._worlds([one], room)]

    def _decide(
        self, leases: Sequence[broker.Lease], worlds: Sequence[World | Exception | None]
    ) -> list[Decision]:
        """The plans of those that could be planned, each over what those before it leave."""
        decisions = []
        for lease, world in zip(leases, worlds, strict=True):
            if world is None:
                continue  # The job is gone, and its row with it.
            if isinstance(world, Exception):
                self._give_back(lease, world)
                continue
            try:
                plan = schedule(world)
            except Exception as error:  # noqa: BLE001 - whatever it is, only this job suffers it.
                self._give_back(lease, error)
                continue
            for place in plan.place:
                world.room.take(place.node, place.need)
            decisions.append(Decision(lease, world, plan))
        return decisions

    def _commit(self, decisions: Sequence[Decision], *, again: bool = True) -> None:
        """Write all plans at once or, if that fails, one by one.

        What the database refused for its own reasons (a lost connection, a deadlock) is tried
        *again* once: if it had been committed after all, the fence says so.  What nobody knows
        of is given back.
        """
        if not decisions:
            return
        try:
            apply(decisions)
        except Exception as error:  # noqa: BLE001 - the guilty one is found and given back
            connection.close_if_unusable_or_obsolete()
            is_its_own = isinstance(error, OperationalError | InterfaceError)
            if doubtful := [it for it in decisions if it.is_in_doubt]:
                for decision in doubtful:
                    self._give_back(decision.lease, error)
                self._commit([it for it in decisions if not it.is_in_doubt])
            elif len(decisions) > 1:
                log.warning("a group of %d plans is written one by one: %s", len(decisions), error)
                for decision in decisions:
                    self._commit([decision])
            elif again and is_its_own:
                self._commit(decisions, again=False)
            else:
                self._give_back(decisions[0].lease, error)

    def _give_back(self, lease: broker.Lease, error: Exception) -> None:
        log.warning(
            "evaluation %d of job %s failed: %s",
            lease.evaluation,
            lease.job,
            error,
            exc_info=None if isinstance(error, Error) else error,
        )
        try:
            broker.nack(lease, f"{type(error).__name__}: {error}")
        except Error as why:
            log.warning("the evaluation cannot be given back now: %s", why)
            self._leave_behind()
