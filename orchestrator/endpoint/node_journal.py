"""What nodes have written in the journal by what they say: bounded, and nothing left out unsaid.

A frame of reports writes one row of a kind, however many executions it names; a node, no more than
RATE a second for long.  What is left out is counted, and said in the next row that is written.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from nodes.token_bucket import TokenBucket
from orchestrator.explain.formatting import counted
from orchestrator.models import Event, journal

#: Rows at once of one node, and how many a second after that.
BURST, RATE = 60.0, 0.5
#: Nodes remembered; the one that was silent for longest is forgotten first.
MOST = 20_000


@dataclass(slots=True)
class _Writer:
    bucket: TokenBucket = field(default_factory=lambda: TokenBucket(BURST, RATE))
    left_out: int = 0


_writers: OrderedDict[UUID, _Writer] = OrderedDict()
_lock = threading.Lock()


def record(events: Iterable[Event]) -> None:
    """Append those of *events* that their nodes may still write, in the caller's transaction."""
    now, written = time.monotonic(), []
    with _lock:
        for event in events:
            assert event.node_id is not None
            writer = _writers.setdefault(event.node_id, _Writer())
            _writers.move_to_end(event.node_id)
            if not writer.bucket.takes(now):
                writer.left_out += 1
                continue
            if writer.left_out:
                written.append(_left_out(event.node_id, writer.left_out))
                writer.left_out = 0
            written.append(event)
        while len(_writers) > MOST:
            _writers.popitem(last=False)
    journal.record(written)


def record_node(node: UUID, what: str, message: str, /) -> None:
    """Append what befell *node*; see ``nodes.callbacks.Record``."""
    record([journal.fact("node", what, message, node=node)])


def _left_out(node: UUID, number: int) -> Event:
    said = f"{counted(number, 'event')} left out here: the node caused too many"
    return journal.fact("node", "left-out", said, node=node, number=number)
