"""Drivers: how a task is run.  Each tells facts; none decides anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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

    def open(self, interrupted: Iterable[Entry]) -> list[Fact]:
        """Get ready; say of each interrupted task what is known of it, or tell it later."""
        ...

    def start(self, entry: Entry) -> None: ...

    def stop(self, execution: str) -> None:
        """TERM, then KILL after the task's grace.  Asking again changes nothing."""
        ...

    def discard(self, execution: str) -> None:
        """The work directory may go; the logs stay for a while."""
        ...

    def tidy(self) -> None:
        """Remove what is not needed any more.  Called after a commit, and now and then."""
        ...

    def close(self) -> None:
        """Let go.  Tasks go on."""
        ...
