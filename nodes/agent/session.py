"""The session over one link, and the hello and heartbeats by which it is kept.  Pure."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from ..protocol.messages import VERSION, Heartbeat, Held, Hello, Holding, Order
from ..protocol.session import digest
from .records import Entry, Machine, Stage

#: Until a welcome says how often we are to be heard, silence this long ends a link.
_PATIENCE = 30.0
#: Heartbeats come no more often than this, whoever asks.
SHORTEST = 0.05
#: Of a heartbeat that is due since something has changed, and the one before it.
APART = 0.5
#: Links are given up after this many heartbeats without a word.
_MISSED = 3
#: As many executions as a hello can name within one frame.
_NAMED = 2000

_HOLDING = {
    Stage.HELD: Holding.BID,
    Stage.STARTING: Holding.PREPARING,
    Stage.RUNNING: Holding.RUNNING,
    Stage.ENDED: Holding.ENDED,
}


@dataclass
class Session:
    """What is known of the present link; it has an ``epoch`` from its welcome on."""

    heard_at: float
    epoch: int | None = None
    heartbeat: float = _PATIENCE / _MISSED
    beat_at: float | None = None
    beaten_at: float = -math.inf
    load: float = 0.0
    #: Why the node takes no new work, as its hello has said it.
    degraded: str = ""
    #: The full desired set while its frames are still arriving.
    gathering: list[Order] | None = None

    @property
    def gives_up_at(self) -> float:
        return self.heard_at + _MISSED * self.heartbeat


def hello(
    machine: Machine, entries: Collection[Entry], order_rev: int, *, fenced: bool, degraded: str
) -> Hello:
    """Who we are and what we hold; of very many executions those that live."""
    by_liveness = sorted(entries, key=lambda entry: not entry.live)
    holds = tuple(Held(e.execution, _HOLDING[e.stage]) for e in by_liveness[:_NAMED])
    return Hello(
        version=VERSION,
        instance=machine.instance,
        run=machine.run,
        ledger=machine.ledger,
        boot=machine.boot,
        resources=machine.capacity,
        attributes=machine.attributes,
        order_rev=order_rev,
        holds=holds,
        partial=len(by_liveness) > len(holds),
        agent_version=machine.agent_version,
        fenced=fenced,
        degraded=degraded,
    )


def heartbeat(
    session: Session, entries: Collection[Entry], order_rev: int, degraded: str
) -> Heartbeat:
    """That we are here, and a digest of what we hold."""
    assert session.epoch is not None, "there are no heartbeats before the welcome"
    live = [entry for entry in entries if entry.live]
    return Heartbeat(
        epoch=session.epoch,
        order_rev=order_rev,
        digest=digest((entry.execution, entry.told_to_run) for entry in live),
        running=sum(entry.told_to_run for entry in live),
        load=session.load,
        degraded=degraded,
    )
