"""Running a cluster of django-q2 whose processes may be killed, each at any moment.

Stock django-q2 hangs for ever when an idle worker is killed, leaves orphans when its parent is,
and stops only after what it does is done.  Here its queues, events and values are replaced by
those of ``sharing``, every child dies with its parent, and the parent brings the rest back.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from django.db import connections
from django_q import cluster as stock
from django_q.conf import Conf

from orchestrator.server.child_processes import die_with

from . import ipc
from .periodic import Chore, Chores

log = logging.getLogger(__name__)

#: Seconds that the processes get to finish what they do before they are killed.
PATIENCE = 8.0

#: Seconds after which a cluster whose sentinel died is started again.
PAUSE = 0.5


def run(
    workers: int,
    *,
    begin: Callable[[], None],
    end: Callable[[], None],
    chores: Sequence[Chore] = (),
) -> None:
    """Run *workers* worker processes until SIGTERM or SIGINT.

    Each calls *begin* after its fork and *end* before it goes.  The *chores* are done beside them.
    """
    ipc.share_stopping()
    _end_children_with_us()
    _replace(begin, end, chores)
    Conf.WORKERS = workers
    while not ipc.stopping():
        connections.close_all()
        cluster = _Cluster()
        cluster.start()
        cluster.sentinel.join()
        if not ipc.stopping():
            log.critical("the sentinel died; its cluster is started again")
            time.sleep(PAUSE)


class _Cluster(stock.Cluster):  # type: ignore[misc] # django-q2 has no types
    def sig_handler(self, signum: int, frame: Any) -> None:
        """Stop everything; for good after PATIENCE."""
        ipc.stop()
        signal.signal(signal.SIGALRM, self._lose_patience)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        super().sig_handler(signum, frame)

    def _lose_patience(self, *_: object) -> None:
        if self.sentinel is not None and self.sentinel.is_alive():
            self.sentinel.kill()


def _end_children_with_us() -> None:
    """Have each forked process, and those forked from it, killed when its parent is gone."""
    parent = os.getpid()

    def before() -> None:
        nonlocal parent
        parent = os.getpid()

    os.register_at_fork(before=before, after_in_child=lambda: die_with(parent, signal.SIGKILL))


def _replace(begin: Callable[[], None], end: Callable[[], None], chores: Sequence[Chore]) -> None:
    stock_worker, stock_pusher = stock.worker, stock.pusher

    def worker(*arguments: Any) -> None:
        begin()
        stock_worker(*arguments)
        end()

    def pusher(*arguments: Any) -> None:
        Chores(chores).start()
        stock_pusher(*arguments)

    stock.Queue = ipc.Channel
    stock.Event = ipc.Flag
    stock.Value = ipc.shared_value
    stock.worker = worker
    stock.pusher = pusher
