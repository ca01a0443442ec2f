"""The broker as django-q2 knows it: it hands out pull tickets when there is work.

A ticket carries nothing: the worker that gets it leases evaluations itself.  So leases begin
when work begins, and priority is exact.  Ordinary tasks of django-q2 go through its own table.
"""

from __future__ import annotations

import logging
import time
import uuid

from django.db import Error, connection
from django.utils import timezone
from django_q.brokers.orm import ORM
from django_q.conf import Conf
from django_q.signing import SignedPackage

from nodes.hints import Hint, Listener, after_commit
from orchestrator import broker

from .ipc import stopping

log = logging.getLogger(__name__)

#: What a worker does with a ticket.
PULL = "orchestrator.worker.pull"

TICKET = "ticket"

#: Seconds after which the queue is looked at without any hint, and between two looks at whether
#: the cluster stops.
POLL, BEAT = 1.0, 0.25

#: Seconds after which a database that did not answer is asked again.
AGAIN = 0.5

#: Seconds that a look waits, once in POLL, for plans that are about to block jobs: enough to get
#: past those of a busy cluster, and short when the process of one is stopped.
PATIENCE = 0.1

#: Seconds between two tickets for the same news: time for the first worker to begin.  Doubled
#: while work goes on waiting.
PAUSE, LONGEST_PAUSE = 0.01, 0.08


class EvaluationBroker(ORM):  # type: ignore[misc] # django-q2 has no types
    """Hands out a pull ticket when evaluations wait, and ordinary tasks of django-q2."""

    def __init__(self, list_key: str | None = None) -> None:
        super().__init__(list_key)
        self._listener: Listener | None = None
        self._pause = 0.0
        self._looked_at_tasks = 0.0
        self._was_patient = 0.0

    def info(self) -> str:
        return "evaluations"

    def enqueue(self, task: str) -> int:
        """Queue an ordinary task, in the caller's transaction."""
        key: int = super().enqueue(task)
        after_commit(Hint.WORK)
        return key

    def dequeue(self) -> list[tuple[object, str]] | None:
        """Wait for work, at most about a second.  Called in a loop by the pusher process."""
        try:
            return self._next()
        except Error as error:
            # Raising would end the pusher, ten seconds later.
            log.warning("the database does not answer, trying again: %s", error)
            connection.close()
            self._wait(AGAIN)
            return None

    def _next(self) -> list[tuple[object, str]] | None:
        if self._pause and self._wait(self._pause):
            self._pause = 0.0
        # Evaluations are looked for first, they are awaited; tasks at least every POLL seconds.
        if time.monotonic() - self._looked_at_tasks > POLL and (tasks := self._tasks()):
            return tasks
        wants_pull, due_in = _look(self._patience())
        if wants_pull:
            self._pause = min(max(PAUSE, 2 * self._pause), LONGEST_PAUSE)
            return [(TICKET, _ticket())]
        self._pause = 0.0
        if tasks := self._tasks():
            return tasks
        self._wait(POLL if due_in is None else min(POLL, due_in))
        return None

    def delete(self, task_id: object) -> None:
        """Forget an ordinary task; there is nothing to forget about a ticket."""
        if task_id != TICKET:
            super().delete(task_id)

    def close(self) -> None:
        """Hear no more hints."""
        if self._listener is not None:
            self._listener.close()

    def _wait(self, seconds: float) -> bool:
        """Whether a hint came within *seconds*."""
        if self._listener is None:
            self._listener = Listener([Hint.WORK])
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0 and not stopping():
            if self._listener.wait(min(rest, BEAT)):
                return True
        return False

    def _patience(self) -> float:
        now = time.monotonic()
        if now - self._was_patient < POLL:
            return 0.0
        self._was_patient = now
        return PATIENCE

    def _tasks(self) -> list[tuple[object, str]]:
        """Ordinary tasks that are due, locked until they are tried again."""
        self._looked_at_tasks = time.monotonic()
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE django_q_ormq SET lock = clock_timestamp() + %s * interval '1 second'
                WHERE id IN (
                    SELECT id FROM django_q_ormq WHERE key = %s AND lock <= clock_timestamp()
                    ORDER BY lock, id LIMIT %s FOR UPDATE SKIP LOCKED)
                RETURNING id, payload
                """,
                [Conf.RETRY, self.list_key, Conf.BULK],
            )
            found: list[tuple[object, str]] = cursor.fetchall()
            return found


def _look(patience: float) -> tuple[bool, float | None]:
    """Whether evaluations wait now, and else in how many seconds the next one is due."""
    work = broker.work()
    if work.paused:
        return False, None
    if work.freed and broker.unblock(patience):
        return True, None
    is_due = work.due_in is not None and work.due_in <= 0
    return work.ready or is_due, work.due_in


def _ticket() -> str:
    ticket: str = SignedPackage.dumps(
        {
            "id": uuid.uuid4().hex,
            "name": TICKET,
            "func": PULL,
            "args": (),
            "kwargs": {},
            "started": timezone.now(),
            "save": False,
            "ack_failure": True,
        }
    )
    return ticket
