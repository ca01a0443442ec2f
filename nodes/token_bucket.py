"""How often something may happen: so many at once, and so many a second.  Pure: time is told."""

from __future__ import annotations

from dataclasses import dataclass


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
