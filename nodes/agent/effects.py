"""What the core asks for.  The runner carries it out, in this order, after the commit."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.messages import FromNode, Unwatch, Watch
from .records import Entry


@dataclass(frozen=True)
class Start:
    """Start the task of *entry*; that it is about to be started is already durable."""

    entry: Entry


@dataclass(frozen=True)
class Stop:
    """Ask the running task to end: TERM, then KILL after its grace."""

    execution: str
    driver: str


@dataclass(frozen=True)
class Discard:
    """Everything about this execution is acknowledged; its work directory may go."""

    execution: str
    driver: str


@dataclass(frozen=True)
class Send:
    """Send one message on the present link, if there still is one."""

    message: FromNode


@dataclass(frozen=True)
class Drop:
    """Close the present link and connect again."""

    code: int
    reason: str


@dataclass(frozen=True)
class Follow:
    """Stream a log to a watcher, or grant a running watch more credit."""

    watch: Watch


@dataclass(frozen=True)
class Unfollow:
    watch: Unwatch


Effect = Start | Stop | Discard | Send | Drop | Follow | Unfollow
