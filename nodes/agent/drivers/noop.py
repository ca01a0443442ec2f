"""A driver that runs nothing and succeeds: for simulated agents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Set

from ..facts import Exited, Fact, Started, Vanished
from ..records import Entry
from . import Tell


class NoopDriver:
    """Tasks that do nothing for *duration* seconds and succeed."""

    def __init__(self, tell: Tell, duration: float = 0.0) -> None:
        self._tell, self._duration = tell, duration
        self._running: dict[str, asyncio.TimerHandle] = {}
        self._fresh: list[Fact] = []

    degraded = ""

    def open(self, interrupted: Iterable[Entry], *, rebooted: bool) -> list[Fact]:
        return [Vanished(entry.execution) for entry in interrupted]

    def start(self, entry: Entry) -> None:
        loop = asyncio.get_running_loop()
        if not self._fresh:
            loop.call_soon(self._flush)
        self._fresh.append(Started(entry.execution))
        if self._duration:
            timer = loop.call_later(self._duration, self._end, entry.execution, 0, "")
            self._running[entry.execution] = timer
        else:
            self._fresh.append(Exited(entry.execution, 0, ran=0.0))

    def stop(self, execution: str) -> None:
        if (timer := self._running.get(execution)) is not None:
            timer.cancel()
            self._end(execution, -15, "stopped")

    def discard(self, execution: str) -> None:
        pass

    def tidy(self, kept: Set[str]) -> None:
        pass

    def close(self) -> None:
        for timer in self._running.values():
            timer.cancel()

    def _end(self, execution: str, status: int, why: str) -> None:
        self._running.pop(execution, None)
        self._tell([Exited(execution, status, why=why, ran=self._duration)])

    def _flush(self) -> None:
        facts, self._fresh = self._fresh, []
        self._tell(facts)
