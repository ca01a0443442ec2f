"""Why a job is as it is: values with a class, numbers and times.  Pure.

They are made where it is decided, stored as they are, and worded last, by ``wording``.  What an
earlier release stored as a sentence is read as ``Said``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from orchestrator.lifecycle import ENDED

#: Names of nodes that a reason holds; of more it holds the number.
MOST_NAMES = 3


class Cause(StrEnum):
    """The class of a reason: what kind of thing the job waits for, or was ended by."""

    SAID = "said"
    FAILED = "failed"
    STOPPED = "stopped"
    TIMEOUT = "timeout"
    COMPLETED = "completed"
    IMPOSSIBLE = "impossible"
    CAPACITY = "capacity"
    DELAYED = "delayed"
    LOST = "node lost"
    SILENT = "node silent"
    BID = "bid"
    STARTING = "starting"
    STOPPING = "stopping"


class How(StrEnum):
    """What became of an execution whose slot is not done."""

    FAILED = "failed"
    LOST = "lost"
    UNDELIVERED = "undelivered"
    OVERRAN = "overran"
    INTERRUPTED = "interrupted"


class Final(StrEnum):
    """Why a slot is not tried again."""

    ATTEMPTS = "attempts"
    NO_USE = "no-use"
    NOT_RETRIED = "not-retried"  # As an earlier release said of what `retry.on` left out.
    ON_LOST = "on-lost"
    INTERRUPTIONS = "interruptions"


class Lack(StrEnum):
    """What no node of the cluster has."""

    DRIVER = "driver"
    CONSTRAINT = "constraint"
    COMBINATION = "combination"
    SIZE = "size"
    SIZES = "sizes"


class _Value(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="is"):
    pass


class Said(_Value, tag="said", frozen=True):
    """Words of an earlier release, of which no more is known."""

    text: str


# --- how a job ended ---------------------------------------------------------------------------


class SlotFailed(_Value, tag="slot-failed", frozen=True):
    """An attempt of *slot* on *node* came to nothing; *final* says why there is no other."""

    slot: int
    node: str
    attempt: int
    attempts: int
    how: How = How.FAILED
    final: Final | None = None
    exit_code: int | None = None
    code: str = ""
    message: str = ""


class SlotInterrupted(_Value, tag="slot-interrupted", frozen=True):
    """An execution of *slot* on *node* was cut off; *final* says why there is no other, if so.

    It was interruption *number* of the slot, of which there may be *most*.
    """

    slot: int
    node: str
    number: int
    most: int
    how: How
    final: Final | None = None
    message: str = ""


class Completed(_Value, tag="completed", frozen=True):
    count: int


class Stopped(_Value, tag="stopped", frozen=True):
    """Somebody asked for it; *by* is an actor such as ``user:ana``, empty where it is not known."""

    by: str = ""
    why: str = ""


class TookTooLong(_Value, tag="took-too-long", frozen=True):
    """*limit* is in seconds."""

    limit: float


# --- what it waits for -------------------------------------------------------------------------


class Impossible(_Value, tag="impossible", frozen=True):
    """No node could ever run it: of *nodes*, none has *what*, or the largest has *most*."""

    nodes: int
    lack: Lack
    what: str = ""
    need: int = 0
    most: int = 0


class NoNode(_Value, tag="no-node", frozen=True):
    pass


class NoRoom(_Value, tag="no-room", frozen=True):
    """*short* is what the best of *nodes* lacks now, by dimension."""

    nodes: int
    short: dict[str, int] = {}


class AllClosed(_Value, tag="all-closed", frozen=True):
    """The *nodes* that could run it take no new work: how many for which reason."""

    nodes: int
    closed: dict[str, int] = {}


class Refused(_Value, tag="refused", frozen=True):
    """*nodes* that have room have refused the job; they are asked again at *until*."""

    until: datetime
    nodes: tuple[str, ...] = ()
    more: int = 0


Shortage = Impossible | NoNode | NoRoom | AllClosed | Refused | Said


class Unplaced(_Value, tag="unplaced", frozen=True):
    """*missing* of *count* slots have found no node, the first of them at *since*."""

    missing: int
    count: int
    why: Shortage
    since: datetime | None = None


class NoPlaceInTime(_Value, tag="no-place-in-time", frozen=True):
    """*limit* is in seconds; 0 is at once."""

    missing: int
    count: int
    limit: float
    why: Shortage


class Delayed(_Value, tag="delayed", frozen=True):
    """*slots* are tried again, the next of them at *until*.

    *last* is how that failed which waits longest.
    """

    slots: int
    until: datetime
    last: SlotFailed | SlotInterrupted | Said | None = None


class AwaitsLost(_Value, tag="awaits-lost", frozen=True):
    """*slots* wait for lost nodes to come back."""

    slots: int
    nodes: tuple[str, ...]
    more: int = 0


class AwaitsBid(_Value, tag="awaits-bid", frozen=True):
    """*bids* were asked for and not answered, the first of them at *since*."""

    bids: int
    nodes: tuple[str, ...]
    since: datetime
    more: int = 0


class Starting(_Value, tag="starting", frozen=True):
    executions: int
    nodes: tuple[str, ...] = ()
    more: int = 0


class ToPlace(_Value, tag="to-place", frozen=True):
    slots: int


class ToEnd(_Value, tag="to-end", frozen=True):
    """*executions* were told to stop and have not ended."""

    executions: int


class NodeSilent(_Value, tag="node-silent", frozen=True):
    """A node that holds *executions* of the job was last heard of at *since*.

    Known only when somebody looks; no decision makes it.
    """

    node: str
    since: datetime
    executions: int


Reason = (
    Said
    | SlotFailed
    | SlotInterrupted
    | Completed
    | Stopped
    | TookTooLong
    | NoPlaceInTime
    | Unplaced
    | Impossible
    | NoNode
    | NoRoom
    | AllClosed
    | Refused
    | Delayed
    | AwaitsLost
    | AwaitsBid
    | Starting
    | ToPlace
    | ToEnd
    | NodeSilent
)

#: Why a slot is given up.
Failure = SlotFailed | SlotInterrupted | Said

_CAUSES: dict[type[Reason], Cause] = {
    Said: Cause.SAID,
    SlotFailed: Cause.FAILED,
    SlotInterrupted: Cause.FAILED,
    Completed: Cause.COMPLETED,
    Stopped: Cause.STOPPED,
    TookTooLong: Cause.TIMEOUT,
    NoPlaceInTime: Cause.TIMEOUT,
    Impossible: Cause.IMPOSSIBLE,
    NoNode: Cause.CAPACITY,
    NoRoom: Cause.CAPACITY,
    AllClosed: Cause.CAPACITY,
    Refused: Cause.DELAYED,
    Delayed: Cause.DELAYED,
    AwaitsLost: Cause.LOST,
    AwaitsBid: Cause.BID,
    Starting: Cause.STARTING,
    ToPlace: Cause.STARTING,
    ToEnd: Cause.STOPPING,
    NodeSilent: Cause.SILENT,
}


def cause(reason: Reason) -> Cause:
    """The class of *reason*."""
    return cause(reason.why) if isinstance(reason, Unplaced) else _CAUSES[type(reason)]


def dump(reasons: Iterable[Reason]) -> list[dict[str, Any]]:
    """JSON values of *reasons*."""
    found: list[dict[str, Any]] = msgspec.to_builtins(list(reasons))
    return found


def load(stored: Any) -> tuple[Reason, ...]:
    """The opposite of `dump`; the sentence of an earlier release is one reason, "" is none."""
    found: Sequence[Any] = stored if isinstance(stored, list) else [stored]
    return tuple(it for it in map(load_one, found) if it != Said(""))


class JobLike(Protocol):
    """The row of a job."""

    state: str
    reason: Any
    stop_requested: bool


def of_job(row: JobLike) -> tuple[Reason, ...]:
    """Why a job is as it is.  One that stops waits for nothing but its executions' end."""
    found = load(row.reason)
    if row.stop_requested and row.state not in ENDED:
        return tuple(it for it in found if isinstance(it, ToEnd))
    return found


def load_one(stored: Any) -> Reason:
    """One reason; of what this release does not know, what can be said of it."""
    if isinstance(stored, str) or not stored:
        return Said(stored or "")
    try:
        found: Reason = msgspec.convert(stored, Reason)
    except msgspec.ValidationError:
        kind = stored.get("is") if isinstance(stored, dict) else None
        return Said(str(kind or "").replace("-", " "))
    return found


def load_shortage(stored: Any) -> Shortage:
    """What a blocked job, or a placement record, lacks."""
    found = load_one(stored)
    return found if isinstance(found, Shortage) else Said("")


def named(names: Iterable[str]) -> tuple[tuple[str, ...], int]:
    """The first of *names*, once each, and how many there are besides."""
    found = sorted(set(names))
    return tuple(found[:MOST_NAMES]), max(0, len(found) - MOST_NAMES)
