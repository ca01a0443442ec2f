"""Rules of one session that both ends compute alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def digest(held: Iterable[tuple[str, bool]]) -> str:
    """A short fingerprint of a set of (execution id, told to run): equal sets, equal digest.

    Each heartbeat carries it for the executions the node holds live; the orchestrator computes
    the same over what it has told the node.  A difference that lasts leads to a resync, so that
    both ends converge even from a bug.
    """
    lines = sorted(f"{execution}:{int(running)}" for execution, running in held)
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()
