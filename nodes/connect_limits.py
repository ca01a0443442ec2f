"""How often one credential may connect.  Pure: time is an argument."""

from __future__ import annotations

import hashlib

from .token_bucket import Buckets

#: Connections that may come at once, and how many a second after that.
BURST, RATE = 5.0, 1.0


class ConnectLimits:
    """A bucket of connections for each credential, known or not."""

    def __init__(self) -> None:
        self._buckets = Buckets(BURST, RATE)

    def allows(self, credential: str, now: float) -> bool:
        """Whether *credential* may connect now; counts it if so."""
        key = hashlib.sha256(credential.encode(errors="replace")).digest()
        return self._buckets.allows(key, now)
