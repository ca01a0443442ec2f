"""How often one credential may connect.  Pure: time is an argument."""

from __future__ import annotations

import hashlib

#: Connections that may come at once, and how many a second after that.
BURST, RATE = 5.0, 1.0
#: Credentials remembered; beyond that, those long unused are forgotten.
MOST = 20_000


class ConnectLimits:
    """A bucket of connections for each credential, known or not."""

    def __init__(self) -> None:
        self._buckets: dict[bytes, tuple[float, float]] = {}

    def allows(self, credential: str, now: float) -> bool:
        """Whether *credential* may connect now; counts it if so."""
        key = hashlib.sha256(credential.encode(errors="replace")).digest()
        left, at = self._buckets.get(key, (BURST, now))
        left = min(BURST, left + (now - at) * RATE)
        if left < 1:
            return False
        self._buckets[key] = (left - 1, now)
        if len(self._buckets) > MOST:
            self._forget(now)
        return True

    def _forget(self, now: float) -> None:
        full_again = BURST / RATE
        self._buckets = {k: v for k, v in self._buckets.items() if now - v[1] < full_again}
