"""The heartbeat of a worker: it says that it lives, and keeps its leases while it works."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

from django.db import Error, connection
from django.db.models.functions import Now

from orchestrator import broker
from orchestrator.broker.leases import LEASE
from orchestrator.models import WorkerProcess

from .worker_id import WorkerId

log = logging.getLogger(__name__)

#: Seconds between two beats.
BEAT = 2.0

#: After which silence a worker on another machine is forgotten.
FORGOTTEN = timedelta(hours=1)


class Heartbeat(threading.Thread):
    """A thread beside the work, with a connection of its own."""

    def __init__(self, identity: WorkerId, evaluated: Callable[[], int]) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.identity = identity
        self._evaluated = evaluated
        self._past: list[str] = []
        self._held: Sequence[broker.Lease] = ()
        self._renewed_at = 0.0
        self._beats_now = threading.Event()
        self._ends = False

    @contextmanager
    def holding(self, leases: Sequence[broker.Lease]) -> Iterator[None]:
        """Renew *leases* until the work on them is done."""
        self._renewed_at = time.monotonic()
        self._held = leases
        try:
            yield
        finally:
            self._held = ()

    def be(self, identity: WorkerId) -> None:
        """Be somebody else from now on; leases of who this was are given back in a moment."""
        self._past.append(self.identity.name)
        self.identity = identity
        self._beats_now.set()

    def run(self) -> None:
        """Beat until ``end``."""
        while not self._ends:
            try:
                self._beat()
            except Error as error:
                log.warning("the database does not hear this worker: %s", error)
                connection.close()
            self._beats_now.wait(BEAT)
            self._beats_now.clear()
        connection.close()

    def end(self) -> None:
        """Stop beating, and have the worker forgotten."""
        self._ends = True
        self._beats_now.set()
        if self.is_alive():
            self.join(BEAT)
        connection.close()  # It may have been lost while there was nothing to do.
        names = [self.identity.name, *self._past]
        with suppress(Error):  # Then somebody else forgets it, later.
            broker.give_back(names, "its worker ended")
            WorkerProcess.objects.filter(pk__in=names).delete()

    def _beat(self) -> None:
        past = tuple(self._past)
        if past:
            broker.give_back(past, "its worker lost the database")
            WorkerProcess.objects.filter(pk__in=past).delete()
            del self._past[: len(past)]
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO orchestrator_workerprocess (name, host, pid, seen_at, evaluations)
                VALUES (%s, %s, %s, clock_timestamp(), %s)
                ON CONFLICT (name) DO UPDATE
                SET seen_at = excluded.seen_at, evaluations = excluded.evaluations
                """,
                [self.identity.name, self.identity.host, self.identity.pid, self._evaluated()],
            )
        held = self._held
        if held and time.monotonic() - self._renewed_at > LEASE / 3:
            broker.renew(held)
            self._renewed_at = time.monotonic()


def delete_dead_workers() -> None:
    """Drop workers that are known to be dead, or that nobody has heard of for long."""
    here = WorkerProcess.objects.filter(host=WorkerId.mine().host).values_list("pk", flat=True)
    dead = [name for name in here if WorkerId.parse(name).is_dead()]
    if dead:
        WorkerProcess.objects.filter(pk__in=dead).delete()
    WorkerProcess.objects.filter(seen_at__lt=Now() - FORGOTTEN).delete()
