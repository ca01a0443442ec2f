"""What this process knows of changes, and which sockets want to hear of them.

Hints carry nothing: they only say that something has changed.  The feed gives the changes a
number, the *cursor*, tells its sockets at most four times a second, and leaves it to them to
look.  A page that was rendered at cursor *n* is as new as everything told up to *n*.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from nodes.hints import Hint, subscribe

PAUSE = 0.25
"""Seconds between two tellings: the first change is told at once, the rest together."""

LINGER = 60.0
"""Seconds for which hints are still listened to when the last socket has gone."""

_CURSOR = re.compile(r"([0-9a-z]{1,32})\.([0-9]{1,18})")

Listener = Callable[[], None]
Subscribe = Callable[[Callable[[], None]], Callable[[], None]]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A number of this process; the *process* tells it apart from another one's, or an older."""

    process: str
    number: int

    def __str__(self) -> str:
        return f"{self.process}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """The cursor that *text* spells, or None."""
        found = _CURSOR.fullmatch(text)
        return cls(found[1], int(found[2])) if found else None


class Feed:
    """The changes of the cluster as one web process hears of them.  Lives in its event loop."""

    def __init__(
        self, *, process: str, subscribe: Subscribe, pause: float = PAUSE, linger: float = LINGER
    ) -> None:
        self._process = process
        self._subscribe = subscribe
        self._pause = pause
        self._linger = linger
        self._number = 0
        self._listeners: set[Listener] = set()
        self._unsubscribe: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._resting = False
        self._news = False

    @property
    def cursor(self) -> Cursor:
        return Cursor(self._process, self._number)

    def join(self, listener: Listener) -> None:
        """Call *listener* after every change from now on."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._unsubscribe, self._resting = loop, None, False
            self._listeners.clear()
        self._listeners.add(listener)
        if self._unsubscribe is None:
            self._number += 1  # What nobody listened to is news to every page of before.
            self._unsubscribe = self._subscribe(self.changed)

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners and self._loop is not None and not self._loop.is_closed():
            self._loop.call_later(self._linger, self._stop_if_alone)

    def changed(self) -> None:
        """Something has changed: tell it now, or with what else changes during the pause."""
        if self._resting:
            self._news = True
        else:
            self._tell()

    def _tell(self) -> None:
        assert self._loop is not None
        self._number += 1
        self._resting, self._news = True, False
        for listener in tuple(self._listeners):
            listener()
        self._loop.call_later(self._pause, self._rested)

    def _rested(self) -> None:
        self._resting = False
        if self._news:
            self._tell()

    def _stop_if_alone(self) -> None:
        if not self._listeners and self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None


def _views(callback: Callable[[], None]) -> Callable[[], None]:
    return subscribe(Hint.VIEW, callback)


feed = Feed(process=secrets.token_hex(4), subscribe=_views)
"""The one of this process."""
