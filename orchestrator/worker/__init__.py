"""Workers: django-q2 processes that evaluate jobs, and do what time alone causes.

See ``docs/broker.md``.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import connection

from orchestrator import broker

from .evaluate import Worker
from .heartbeat import delete_dead_workers
from .worker_id import WorkerId

__all__ = [
    "Worker",
    "begin",
    "delete_dead_workers",
    "end",
    "pull",
    "release_leases_of_dead_workers",
]

_worker: Worker | None = None


def begin(stopping: Callable[[], bool] = lambda: False) -> None:
    """Be a worker from now on.  Called once in each worker process, right after its fork.

    A pull ends early once *stopping* says so.
    """
    global _worker  # noqa: PLW0603 - one a process
    connection.close()
    _worker = Worker(WorkerId.mine(), stopping)
    release_leases_of_dead_workers()
    delete_dead_workers()
    _worker.heartbeat.start()


def end() -> None:
    """Be a worker no longer."""
    if _worker is not None:
        _worker.heartbeat.end()


def pull() -> None:
    """The task of a pull ticket: evaluate what is ready."""
    if _worker is None:
        begin()
    assert _worker is not None
    _worker.pull()


def release_leases_of_dead_workers() -> None:
    """Give back at once what dead workers of this machine had leased."""
    dead = [name for name in broker.leaseholders() if WorkerId.parse(name).is_dead()]
    if dead:
        broker.give_back(dead)
