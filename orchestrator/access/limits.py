"""What one user may have of one web process: requests a second, and streams and sockets at once."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from threading import Lock

from django.conf import settings

from nodes.token_bucket import Buckets
from orchestrator.explain.errors import TooManyRequests

SECONDS_AT_ONCE = 10
"""So many seconds' requests may come at once."""

USERS_OF_AN_ADDRESS = 10
"""An address may ask as often as so many users: they may share it."""


class Requests:
    """How often each of many asks; with a rate of 0 as often as they like."""

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self.rate = rate
        self._buckets = Buckets(rate * SECONDS_AT_ONCE if burst is None else burst, rate)

    def count(self, key: Hashable, name: str) -> None:
        """Raise TooManyRequests for who asks more often than that."""
        if self.rate and not self._buckets.allows(key, time.monotonic()):
            raise TooManyRequests(who=name, rate=f"{self.rate:g}", retry_after=1)


class Slots:
    """Things of which each user may have so many at once.

    The garbage collector may give one back, in any thread and between any two steps, of `take`
    too: that waits for no lock, and is counted when the next one is taken.
    """

    def __init__(self) -> None:
        self._taken: Counter[Hashable] = Counter()
        self._given_back: deque[Hashable] = deque()
        self._lock = Lock()

    def take(self, key: Hashable, most: int) -> Slot | None:
        """One more for *key*; None when they have *most* already."""
        with self._lock:
            while self._given_back:
                self._count_back(self._given_back.popleft())
            if self._taken[key] >= most:
                return None
            self._taken[key] += 1
        return Slot(self, key)

    def give_back(self, key: Hashable) -> None:
        self._given_back.append(key)

    def _count_back(self, key: Hashable) -> None:
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]


@dataclass(slots=True)
class Slot:
    """One of those; it is given back once, however often that is said."""

    _of: Slots
    _key: Hashable
    _is_taken: bool = field(default=True)

    def release(self) -> None:
        if self._is_taken:
            self._is_taken = False
            self._of.give_back(self._key)


requests = Requests(settings.REQUESTS_PER_SECOND)
requests_of_addresses = Requests(USERS_OF_AN_ADDRESS * settings.REQUESTS_PER_SECOND)
streams, sockets = Slots(), Slots()
