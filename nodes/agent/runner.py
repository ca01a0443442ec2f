"""Carries out what the core decides: ledger, drivers and link around one core.

Work is done in turns.  A turn takes everything that has come in since the last one, so under
load many orders or exits share one commit and one frame; when idle a turn begins at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from ..protocol import codec
from ..protocol.messages import Close, FromNode, FromServer, Goodbye, LogChunk, Report
from .core import Core
from .drivers import Driver, Tell
from .effects import Discard, Drop, Effect, Follow, Send, Start, Stop, Unfollow
from .facts import Fact, NotStarted
from .ledger import LedgerUnusable, NoRoom
from .log_streaming import Watches
from .records import Changes, Machine, Saved
from .room import Room

log = logging.getLogger(__name__)

#: Changes that are not urgent are committed at least this often, in seconds.
_LAZY = 1.0
_TIDY = 60.0
_LOOK = 2.0


class Keeping(Protocol):
    """A ledger, as the runner needs it."""

    id: str
    run: int
    is_older: bool

    def saved(self) -> Saved: ...
    def recall(self, execution: str) -> tuple[bool, Report | None]: ...
    def commit(self, changes: Changes, now: float) -> None: ...
    def prune(self, now: float) -> None: ...
    def take_room(self) -> None: ...
    def close(self) -> None: ...


class Wire(Protocol):
    """A link, as the runner needs it."""

    def send(self, frame: str | bytes) -> None: ...
    def drop(self, code: int, reason: str) -> None: ...


class Runner:
    """One agent at work, on the running event loop."""

    def __init__(
        self,
        machine: Machine,
        ledger: Keeping,
        drivers: Callable[[Tell], Mapping[str, Driver]],
        logs: Path | None = None,
        room: Room | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ledger = ledger
        saved = ledger.saved()
        self.core = Core(machine, saved, ledger.recall)
        #: Whether tasks may have run here of which the ledger knows nothing.
        self._is_older = ledger.is_older or not saved.boot
        self._drivers = drivers(self.tell)
        self._watches = Watches(logs, self.core.is_live, self._send, self._send_chunk)
        self._room = room
        self._wire: Wire | None = None
        self._inbox: list[FromServer] = []
        self._facts: list[Fact] = []
        self._turn_is_due = self._is_closed = False
        self._alarm: asyncio.TimerHandle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._tidying: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        #: Called, once, with the exception that makes going on impossible.
        self.on_failure: Callable[[BaseException], None] = self._raise

    def start(self) -> None:
        """Account for what ran before, then be ready.

        Raises LedgerUnusable when nobody here can: what another version began may run on.
        """
        interrupted = self.core.interrupted()
        if lacking := {entry.driver for entry in interrupted} - self._drivers.keys():
            raise LedgerUnusable(
                f"the ledger has tasks of the driver {min(lacking)!r}, which this agent lacks: "
                "start the version of the agent that began them"
            )
        for name, driver in self._drivers.items():
            of_driver = [entry for entry in interrupted if entry.driver == name]
            self._facts += driver.open(
                of_driver, rebooted=self.core.rebooted, is_older=self._is_older
            )
        if self._ledger.is_older:
            log.warning(
                "the ledger is older than what was last saved here: it was lost, or a copy was put "
                "in its place; nothing that has run here since then is begun again"
            )
        if interrupted:
            log.info("picked up %d tasks of a former run", len(interrupted))
        self._turn()
        self._tidy()
        self._look()

    def opened(self, wire: Wire, *, fenced: bool = False) -> None:
        """A link is up; the last one was *fenced*, if so."""
        self._wire = wire
        self._carry_out(self.core.opened(self._loop.time(), fenced=fenced))

    def closed(self) -> None:
        """The link is gone."""
        self._wire = None
        self._inbox.clear()
        self._watches.clear()
        self.core.closed()

    def receive(self, message: FromServer) -> None:
        """A message has come; it is taken in with all others of the moment."""
        self._inbox.append(message)
        self._soon()

    def tell(self, facts: list[Fact]) -> None:
        """A driver tells what has happened."""
        self._facts += facts
        self._soon()

    def say_goodbye(self, reason: str) -> None:
        if self.core.epoch is not None:
            self._send(Goodbye(self.core.epoch, reason))

    def close(self) -> None:
        """Save what is not saved, and let go.  Tasks go on: what is told from now on waits."""
        self._is_closed = True
        for timer in (self._alarm, self._later, self._tidying, self._looking):
            if timer is not None:
                timer.cancel()
        self.closed()
        self._save()
        for driver in self._drivers.values():
            driver.close()
        self._ledger.close()

    # --- turns -----------------------------------------------------------------------------------

    def _soon(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False
        if self._is_closed:
            return
        try:
            self._take_turn()
        except Exception as error:  # noqa: BLE001  Half a turn must not be built upon.
            self.on_failure(error)

    def _take_turn(self) -> None:
        messages, self._inbox = self._inbox, []
        facts, self._facts = self._facts, []
        now = self._loop.time()
        effects: list[Effect] = []
        for message in messages:
            effects += self.core.receive(message, now)
        for fact in facts:
            effects += self.core.observe(fact)
        effects += self.core.degrade(self._degraded(), now)
        self._carry_out(effects)

    def _degraded(self) -> str:
        """Why nothing more should be started here."""
        why = {driver.degraded for driver in self._drivers.values()}
        if self._room is not None:
            why.add(self._room.degraded)
        return "; ".join(sorted(why - {""}))

    def _carry_out(self, effects: list[Effect]) -> None:
        if self.core.changes.urgent:
            self._save()
        elif self._later is None and self.core.changes:
            self._later = self._loop.call_later(_LAZY, self._save_later)
        for effect in effects:
            self._carry(effect)
        for frame in self.core.reports():
            self._send(frame)
        self._set_alarm()

    def _carry(self, effect: Effect) -> None:
        match effect:
            case Start(entry=entry):
                try:
                    self._drivers[entry.driver].start(entry)
                except Exception as error:  # A driver's bug is that task's misfortune.
                    log.exception("could not start %s", entry.execution)
                    self.tell([NotStarted(entry.execution, f"the driver failed: {error}")])
            case Stop(execution=execution, driver=name):
                self._drivers[name].stop(execution)
            case Discard(execution=execution, driver=name):
                if name in self._drivers:
                    self._drivers[name].discard(execution)
            case Send(message=message):
                self._send(message)
            case Drop(code=code, reason=reason):
                log.warning("closing the link: %s", reason)
                if self._wire is not None:
                    self._wire.drop(code, reason)
            case Follow(watch=watch):
                self._watches.follow(watch)
            case Unfollow(watch=unwatch):
                self._watches.unfollow(unwatch.watch)

    def _set_alarm(self) -> None:
        """Have ``_tick`` called when the core wants; a late alarm is set anew when it rings."""
        wakes_at = self.core.wakes_at
        if wakes_at is None:
            return
        if self._alarm is not None:
            if self._alarm.when() <= wakes_at:
                return
            self._alarm.cancel()
        self._alarm = self._loop.call_at(wakes_at, self._tick)

    def _tick(self) -> None:
        self._alarm = None
        self._carry_out(self.core.tick(self._loop.time(), load=os.getloadavg()[0]))

    # --- doing -----------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.core.changes:
            changes = self.core.take_changes()
            self._with_room(lambda: self._ledger.commit(changes, self._loop.time()))

    def _with_room(self, write: Callable[[], None]) -> None:
        """Write to the ledger; when the disk is full, once more, with what is kept in reserve."""
        try:
            write()
        except NoRoom:
            if self._room is None:
                raise
            self._room.give(self.core.entries.keys())
            self.tell([])
            write()

    def _save_later(self) -> None:
        self._later = None
        try:
            self._save()
        except Exception as error:  # noqa: BLE001  What cannot be saved must not be promised.
            self.on_failure(error)

    def _send(self, message: FromNode) -> None:
        if self._wire is not None:
            self._wire.send(codec.encode(message))

    def _send_chunk(self, chunk: LogChunk) -> None:
        if self._wire is not None:
            self._wire.send(codec.encode_chunk(chunk))

    def _tidy(self) -> None:
        self._tidying = self._loop.call_later(_TIDY, self._tidy)
        self._save()
        self._with_room(lambda: self._ledger.prune(self._loop.time()))
        for driver in self._drivers.values():
            driver.tidy(self.core.entries.keys())
        if self._room is not None:
            self._room.tidy(self.core.entries.keys())
        with contextlib.suppress(NoRoom):  # Then there will be another time.
            self._ledger.take_room()

    def _look(self) -> None:
        """See how much room there is, more often than to tidy costs."""
        if self._room is None:
            return
        self._looking = self._loop.call_later(_LOOK, self._look)
        was = self._room.degraded
        self._room.look(self.core.entries.keys())
        if self._room.degraded != was:
            self.tell([])

    def _raise(self, error: BaseException) -> None:
        if self._wire is not None:
            self._wire.drop(Close.SHUTTING_DOWN, "the agent cannot save its state")
        raise error
