"""How often something may happen: so many at once, and so many a second.  Pure: time is told."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from threading import Lock

#: Keys that are remembered; beyond that, those whose bucket is full again are forgotten.
MOST = 20_000


@dataclass(slots=True)
class TokenBucket:
    """``burst`` tokens, filled again at ``rate`` a second."""

    burst: float
    rate: float
    left: float = -1.0
    at: float = 0.0

    def takes(self, now: float, amount: float = 1.0) -> bool:
        """Whether there are *amount* tokens at *now*; takes them if so."""
        if self.left < 0:
            self.left, self.at = self.burst, now
        self.left = min(self.burst, self.left + max(0.0, now - self.at) * self.rate)
        self.at = max(self.at, now)
        if self.left < amount:
            return False
        self.left -= amount
        return True

    def is_full(self, now: float) -> bool:
        return self.left + (now - self.at) * self.rate >= self.burst


@dataclass(slots=True)
class Buckets:
    """A bucket for each of many, known or not; any thread may ask."""

    burst: float
    rate: float
    _of: dict[Hashable, TokenBucket] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def allows(self, key: Hashable, now: float) -> bool:
        """Whether *key* may now; counts it if so."""
        with self._lock:
            bucket = self._of.get(key)
            if bucket is None:
                if len(self._of) >= MOST:
                    self._of = {it: b for it, b in self._of.items() if not b.is_full(now)}
                bucket = self._of[key] = TokenBucket(self.burst, self.rate)
            return bucket.takes(now)
