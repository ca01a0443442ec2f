"""How often one credential may connect.  Pure: time is an argument."""

from __future__ import annotations

import hashlib

from .token_bucket import TokenBucket

#: Connections that may come at once, and how many a second after that.
BURST, RATE = 5.0, 1.0
#: Credentials remembered; beyond that, those long unused are forgotten.
MOST = 20_000


class ConnectLimits:
    """A bucket of connections for each credential, known or not."""

    def __init__(self) -> None:
        self._buckets: dict[bytes, TokenBucket] = {}

    def allows(self, credential: str, now: float) -> bool:
        """Whether *credential* may connect now; counts it if so."""
        key = hashlib.sha256(credential.encode(errors="replace")).digest()
        if not self._buckets.setdefault(key, TokenBucket(BURST, RATE)).takes(now):
            return False
        if len(self._buckets) > MOST:
            self._forget(now)
        return True

    def _forget(self, now: float) -> None:
        full_again = BURST / RATE
        self._buckets = {k: v for k, v in self._buckets.items() if now - v.at < full_again}
