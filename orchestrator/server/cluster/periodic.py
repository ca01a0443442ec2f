"""Chores: what must happen every few seconds, in one process of all, or on each machine."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import Error, connection

from nodes.hints import address

from .ipc import stopping

log = logging.getLogger(__name__)

#: The advisory lock of the one process that does what only one should do.
LEADER = 0x6D757374_6C6472

#: Seconds after which a leader that says nothing leads no longer: it may be stopped, and its
#: connection alive for ever.
SILENCE = 10.0


@dataclass(frozen=True, slots=True)
class Chore:
    """Do *what* every *seconds*; in one process of the whole installation, unless *everywhere*.

    May be done twice, late or not at all without harm: leadership is a matter of thrift.
    """

    what: Callable[[], object]
    seconds: float
    everywhere: bool = False


class Chores(threading.Thread):
    """Does the chores, one after the other, beside what its process does otherwise."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        super().__init__(name="chores", daemon=True)
        self._due = dict.fromkeys(chores, time.monotonic())
        self._leader = Leader()

    def run(self) -> None:
        while not stopping():
            now = time.monotonic()
            due = [chore for chore, at in self._due.items() if at <= now]
            leads = bool(due) and self._leader.leads()
            for chore in due:
                self._due[chore] = now + chore.seconds
                if leads or chore.everywhere:
                    _do(chore)
            time.sleep(max(0.05, min(self._due.values()) - time.monotonic()))


def _do(chore: Chore) -> None:
    try:
        chore.what()
    except Error as error:
        log.warning("a chore waits until the database answers: %s", error)
        connection.close_if_unusable_or_obsolete()
    except Exception:  # One chore that fails must not keep the others from being done.
        log.exception("a chore failed: %s", chore.what)
        connection.close_if_unusable_or_obsolete()


class Leader:
    """Holds, on a connection of its own, the lock that makes its process the leader.

    It must ask within *silence* seconds each time, or the server lets another one lead.
    """

    def __init__(self, silence: float = SILENCE) -> None:
        self._silence = silence
        self._connection: psycopg.Connection[Any] | None = None
        self._leads = False

    def leads(self) -> bool:
        """Whether this process leads; asks the server each time, as a connection may be gone."""
        try:
            if self._connection is None:
                self._connection = psycopg.connect(**address(), autocommit=True)
                self._connection.execute(
                    f"SET idle_session_timeout = {round(1000 * self._silence)}"
                )
                self._leads = False
            question = "SELECT true" if self._leads else f"SELECT pg_try_advisory_lock({LEADER})"
            answer = self._connection.execute(question).fetchone()
            self._leads = answer is not None and bool(answer[0])
        except psycopg.Error as error:
            log.warning("cannot find out who leads: %s", error)
            self.close()
        return self._leads

    def close(self) -> None:
        """Lead no longer."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._leads = None, False
