"""Hints: "something changed, look".  They carry nothing, and losing one costs a moment, not truth.

Who changes something says so with ``after_commit``; the process's notifier sends one NOTIFY for
many changes.  Who waits uses a ``Listener`` (a thread) or ``subscribe`` (an event loop), and
looks for itself every now and then, because hints may be lost.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections, transaction

log = logging.getLogger(__name__)


class Hint(StrEnum):
    """What may have changed; the value is the channel."""

    WORK = "muster_work"
    ORDERS = "muster_orders"
    VIEW = "muster_view"


#: The mean time between notifications of one channel by one process, in the long run, and how
#: many may go out at once after a rest: a job at rest changes several times in a moment, and each
#: change is awaited.
PAUSE, BURST = 0.05, 10

#: How long after a lost connection a listener first tries again, and at most.
RETRY, LONGEST_RETRY = 0.1, 5.0

Callback = Callable[[], None]
Connect = Callable[[], "psycopg.Connection[Any]"]


# --- saying it ---------------------------------------------------------------------------------


def after_commit(hint: Hint) -> None:
    """Say *hint* once the current transaction commits, or now if there is none.

    Never blocks and never fails: the hint is sent by a thread of its own.
    """
    tell = _TELL[hint]
    connection = connections[DEFAULT_DB_ALIAS]
    if connection.in_atomic_block and any(said[1] is tell for said in connection.run_on_commit):
        return
    transaction.on_commit(tell)


def flush(within: float = 0.5) -> None:
    """Wait until everything said so far has been sent, or *within* seconds have gone."""
    _notifier.flush(within)


def close() -> None:
    """Send what was said, and give the connection up; the next hint opens another."""
    flush()
    _notifier.close()


class _Notifier:
    """Sends the first hints at once and after that at most twenty a second on a channel.

    The generic cell rate algorithm: ``_rested_at`` is when a channel will have rested from all
    that was sent on it.
    """

    def __init__(self, connect: Connect | None = None) -> None:
        self._connect = connect or _connect
        self._changed = threading.Condition()
        self._sends = threading.Lock()
        self._said: set[Hint] = set()
        self._sending: set[Hint] = set()
        self._rested_at: dict[Hint, float] = {}
        self._thread: threading.Thread | None = None
        self._connection: psycopg.Connection[Any] | None = None

    def tell(self, hint: Hint) -> None:
        with self._changed:
            self._said.add(hint)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, within: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._said and not self._sending, within)

    def close(self) -> None:
        with self._sends:
            if self._connection is not None:
                self._connection.close()

    def _run(self) -> None:
        while True:
            due = self._due()
            try:
                with self._sends:
                    self._send(due)
            except Exception as error:  # noqa: BLE001 - without this thread no hint is ever sent.
                log.warning("a hint is lost (%s): %s", ", ".join(sorted(due)), error)
                self._connection = None
            with self._changed:
                self._sending.clear()
                self._changed.notify_all()

    def _due(self) -> set[Hint]:
        """Wait for hints that may be sent; what is said from then on is news, and sent again."""
        with self._changed:
            while True:
                now = time.monotonic()
                tired = (BURST - 1) * PAUSE
                waits = {hint: self._rested_at.get(hint, 0.0) - tired - now for hint in self._said}
                due = {hint for hint, wait in waits.items() if wait <= 0}
                if due:
                    self._said -= due
                    self._sending |= due
                    for hint in due:
                        self._rested_at[hint] = max(self._rested_at.get(hint, 0.0), now) + PAUSE
                    return due
                self._changed.wait(min(waits.values(), default=None))

    def _send(self, hints: Iterable[Hint]) -> None:
        if self._connection is not None and not self._connection.closed:
            try:
                return self._notify(self._connection, hints)
            except psycopg.Error:  # It may have been cut long ago; nobody looked.
                self._connection.close()
        self._connection = self._connect()
        return self._notify(self._connection, hints)

    @staticmethod
    def _notify(connection: psycopg.Connection[Any], hints: Iterable[Hint]) -> None:
        for hint in hints:
            connection.execute(f"NOTIFY {hint}")


def _connect() -> psycopg.Connection[Any]:
    return psycopg.connect(**address(), autocommit=True)


_notifier = _Notifier()
_of_our_parents: list[_Notifier] = []


def _tell(hint: Hint) -> None:
    _notifier.tell(hint)


_TELL = {hint: partial(_tell, hint) for hint in Hint}


def _begin_anew() -> None:
    """After a fork: the thread is not here and the connection is our parent's, never to close."""
    global _notifier  # noqa: PLW0603 - one a process
    _of_our_parents.append(_notifier)
    _notifier = _Notifier()


os.register_at_fork(after_in_child=_begin_anew)
atexit.register(flush)


def address() -> dict[str, Any]:
    """How to reach the database directly, past any pool, for connections without Django."""
    ours = connections[DEFAULT_DB_ALIAS].get_connection_params()
    return {
        name: value for name, value in ours.items() if name not in ("cursor_factory", "context")
    }


# --- hearing it, in a thread -------------------------------------------------------------------


class Listener:
    """Waits for hints on a connection of its own.  For one thread; not to be taken over a fork."""

    def __init__(self, hints: Iterable[Hint]) -> None:
        self._hints = frozenset(hints)
        self._connection: psycopg.Connection[Any] | None = None
        self._retry = RETRY
        self._retry_at = 0.0

    def wait(self, timeout: float) -> frozenset[Hint]:
        """The hints that came within *timeout* seconds; none when none did.

        Whenever it has (re)connected it answers at once with all of them: what was said before
        was not heard, so everything may have changed.
        """
        try:
            if self._connection is None:
                return self._connect(timeout)
            return self._receive(self._connection, timeout)
        except psycopg.Error as error:
            log.warning("cannot hear hints, trying again in %g s: %s", self._retry, error)
            self.close()
            self._retry_at = time.monotonic() + self._retry
            self._retry = min(2 * self._retry, LONGEST_RETRY)
            return frozenset()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self, timeout: float) -> frozenset[Hint]:
        rest = self._retry_at - time.monotonic()
        time.sleep(max(0.0, min(rest, timeout)))
        if rest > timeout:
            return frozenset()
        self._connection = _connect()
        for hint in sorted(self._hints):
            self._connection.execute(f"LISTEN {hint}")
        self._retry = RETRY
        return self._hints

    def _receive(self, connection: psycopg.Connection[Any], timeout: float) -> frozenset[Hint]:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        if not poll.poll(max(0.0, timeout) * 1000):
            return frozenset()
        connection.pgconn.consume_input()
        heard = set()
        while notification := connection.pgconn.notifies():
            heard.add(Hint(notification.relname.decode()))
        return frozenset(heard)


# --- hearing it, in an event loop ----------------------------------------------------------------


def subscribe(hint: Hint, callback: Callback) -> Callback:
    """Have *callback* called in the running event loop when *hint* comes; returns the way out.

    One connection a process listens for all subscribers, from the first one on.  After every
    (re)connect all callbacks are called: everything may have changed.
    """
    hub = _hubs.setdefault(asyncio.get_running_loop(), _Hub())
    hub.add(hint, callback)
    return partial(hub.remove, hint, callback)


class _Hub:
    """The listener of one event loop, and whom it calls."""

    def __init__(self) -> None:
        self._callbacks: dict[Hint, list[Callback]] = {hint: [] for hint in Hint}
        self._task: asyncio.Task[None] | None = None

    def add(self, hint: Hint, callback: Callback) -> None:
        self._callbacks[hint].append(callback)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="hints")

    def remove(self, hint: Hint, callback: Callback) -> None:
        if callback in self._callbacks[hint]:
            self._callbacks[hint].remove(callback)
        if self._task is not None and not any(self._callbacks.values()):
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        try:
            await self._listen()
        finally:
            # A task knows its loop: that of a loop which has ended would keep all it had open.
            if self._task is asyncio.current_task():
                self._task = None

    async def _listen(self) -> None:
        retry = RETRY
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    **address(), autocommit=True
                ) as connection:
                    for hint in Hint:
                        await connection.execute(f"LISTEN {hint}")
                    self._call(*Hint)
                    retry = RETRY
                    async for notification in connection.notifies():
                        self._call(Hint(notification.channel))
            except Exception as error:  # noqa: BLE001 - else all subscribers are deaf from then on.
                log.warning("cannot hear hints, trying again in %g s: %s", retry, error)
            await asyncio.sleep(retry)
            retry = min(2 * retry, LONGEST_RETRY)

    def _call(self, *hints: Hint) -> None:
        for hint in hints:
            for callback in tuple(self._callbacks[hint]):
                try:
                    callback()
                except Exception:  # One subscriber's mistake is not the others' silence.
                    log.exception("a subscriber to %s failed", hint)


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, _Hub] = WeakKeyDictionary()
