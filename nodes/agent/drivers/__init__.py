"""Drivers: how a task is run.  Each tells facts; none decides anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from typing import Protocol

from ..facts import Fact
from ..records import Entry

#: A driver calls this with what has happened, as many facts at once as there are.
Tell = Callable[[list[Fact]], None]


class Driver(Protocol):
    """What every driver promises.

    ``start`` and ``stop`` return at once; what became of them is told later.  For every start
    exactly one of Exited, NotStarted or Vanished is told in the end, after a restart of the
    agent too.
    """

    @property
    def degraded(self) -> str:
        """Why nothing more can be started now, or "".  When it changes an empty list is told."""
        ...

    def open(
        self, interrupted: Iterable[Entry], *, rebooted: bool, is_older: bool = False
    ) -> list[Fact]:
        """Get ready; say of each interrupted task what is known of it, or tell it later.

        When the machine was *rebooted*, or may have been, what is missing on disk proves nothing,
        and neither when the ledger *is older* than what has run here: then it says of each task
        that is over how it ended, too.
        """
        ...

    def start(self, entry: Entry) -> None: ...

    def stop(self, execution: str) -> None:
        """TERM, then KILL after the task's grace.  Asking again changes nothing."""
        ...

    def discard(self, execution: str) -> None:
        """What became of it is saved and acknowledged: only its logs stay, for a while."""
        ...

    def tidy(self, kept: Set[str]) -> None:
        """Remove what is not needed any more: nothing of the executions in *kept*."""
        ...

    def close(self) -> None:
        """Let go.  Tasks go on."""
        ...
