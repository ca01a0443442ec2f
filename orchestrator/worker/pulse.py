"""The pulse of a worker: it says that it lives, and keeps its leases while it works."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from django.db import Error, connection
from django.db.models.functions import Now

from orchestrator import broker
from orchestrator.broker.leasing import LEASE
from orchestrator.models import WorkerProcess

from .identity import Identity

log = logging.getLogger(__name__)

#: Seconds between two beats.
BEAT = 2.0

#: After which silence a worker on another machine is forgotten.
FORGOTTEN = timedelta(hours=1)


class Pulse(threading.Thread):
    """A thread beside the work, with a connection of its own."""

    def __init__(self, identity: Identity, evaluated: Callable[[], int]) -> None:
        super().__init__(name="pulse", daemon=True)
        self._identity = identity
        self._evaluated = evaluated
        self._held: Sequence[broker.Lease] = ()
        self._renewed_at = 0.0
        self._ends = threading.Event()

    @contextmanager
    def holding(self, leases: Sequence[broker.Lease]) -> Iterator[None]:
        """Renew *leases* until the work on them is done."""
        self._renewed_at = time.monotonic()
        self._held = leases
        try:
            yield
        finally:
            self._held = ()

    def run(self) -> None:
        """Beat until ``end``."""
        while True:
            try:
                self._beat()
            except Error as error:
                log.warning("the database does not hear this worker: %s", error)
                connection.close()
            if self._ends.wait(BEAT):
                break
        connection.close()

    def end(self) -> None:
        """Stop beating, and have the worker forgotten."""
        self._ends.set()
        if self.is_alive():
            self.join(BEAT)
        WorkerProcess.objects.filter(pk=self._identity.name).delete()

    def _beat(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO orchestrator_workerprocess (name, host, pid, seen_at, evaluations)
                VALUES (%s, %s, %s, clock_timestamp(), %s)
                ON CONFLICT (name) DO UPDATE
                SET seen_at = excluded.seen_at, evaluations = excluded.evaluations
                """,
                [self._identity.name, self._identity.host, self._identity.pid, self._evaluated()],
            )
        held = self._held
        if held and time.monotonic() - self._renewed_at > LEASE / 3:
            broker.renew(held)
            self._renewed_at = time.monotonic()


def forget() -> None:
    """Drop workers that are known to be dead, or that nobody has heard of for long."""
    here = WorkerProcess.objects.filter(host=Identity.mine().host).values_list("pk", flat=True)
    dead = [name for name in here if Identity.parse(name).is_dead()]
    if dead:
        WorkerProcess.objects.filter(pk__in=dead).delete()
    WorkerProcess.objects.filter(seen_at__lt=Now() - FORGOTTEN).delete()
