"""Two calls on connections of their own, the first held before one of its SQL statements."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from django.db import connection, connections

#: Seconds that a call may take once nothing holds it; more is a deadlock that nobody noticed.
PATIENCE = 20.0


class Lane:
    """A thread that makes calls one after the other, on one connection of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="lane")

    def submit(self, call: Callable[[], None]) -> Future[None]:
        return self._threads.submit(call)

    def close(self) -> None:
        self.submit(connections.close_all)
        self._threads.shutdown()


class Held:
    """Calls *function* in a thread; it waits before its statement number *at* until let go.

    The thread is that of *lane*, or one of its own.
    """

    def __init__(
        self, function: Callable[[], object], at: int | None = None, lane: Lane | None = None
    ) -> None:
        self.error: Exception | None = None
        self._function, self._at, self._seen = function, at, 0
        self._changed = threading.Condition()
        self._is_held = self._is_free = self._is_over = False
        self._backend = 0
        self._lane = lane or Lane()
        self._future = self._lane.submit(self._run)
        self._is_alone = lane is None

    def is_held(self) -> bool:
        """Wait until it is held, or over; whether it is held."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_held or self._is_over, PATIENCE)
            return self._is_held

    def is_over(self, watcher: Any) -> bool:
        """Wait until it is over, or waits for a lock as *watcher*, a cursor, sees; whether over."""
        deadline = time.monotonic() + PATIENCE
        while not self._is_over and time.monotonic() < deadline:
            with self._changed:
                if self._changed.wait_for(lambda: self._is_over, 0.002):
                    break
            watcher.execute(
                "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s",
                [self._backend],
            )
            if (found := watcher.fetchone()) and found[0]:
                return False
        return self._is_over

    def let_go(self) -> None:
        with self._changed:
            self._is_free = True
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait until it is over; raises when that takes too long."""
        self.let_go()
        self._future.result(PATIENCE)
        if self._is_alone:
            self._lane.close()

    def _run(self) -> None:
        try:
            connection.ensure_connection()
            self._backend = connection.connection.info.backend_pid
            with connection.execute_wrapper(self._hold):
                self._function()
        except Exception as error:  # noqa: BLE001 - the caller asks for it
            self.error = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()
            connection.close_if_unusable_or_obsolete()

    def _hold(self, execute: Any, sql: Any, parameters: Any, many: bool, context: Any) -> Any:
        if self._seen == self._at:
            with self._changed:
                self._is_held = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._is_free, PATIENCE)
                self._is_held = False
        self._seen += 1
        return execute(sql, parameters, many, context)
