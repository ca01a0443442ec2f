"""Room on the disk of the state directory: a reserve for the ledger, and a bound on logs."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Set
from pathlib import Path

from .logs import remove_oldest, total

log = logging.getLogger(__name__)

#: What is kept in reserve, in bytes, so that the ledger can be written when the disk is full.
RESERVE = 8 << 20
#: The disk is full when less than FULL is free beside the reserve, and then until ENOUGH is.
FULL, ENOUGH = 4 << 20, 8 << 20
#: Logs of what has ended take no more than this, or than a tenth of the disk if that is less.
LOGS = 10 << 30


class Room:
    """The room of one state directory.  Logs of executions that are *kept* are never removed."""

    def __init__(self, state: Path, logs: int | None = None) -> None:
        self._state, self._logs, self._reserve = state, state / "logs", state / "reserve"
        self._most = min(LOGS, shutil.disk_usage(state).total // 10) if logs is None else logs
        self.is_full = False

    @property
    def degraded(self) -> str:
        """Why nothing more should be started here."""
        return "its disk is full" if self.is_full else ""

    def look(self, kept: Set[str]) -> None:
        """See whether there is room: if not, logs go; if so, the reserve is filled up."""
        if self._free() < FULL:
            remove_oldest(self._logs, kept, ENOUGH - self._free())
        free, was_full = self._free(), self.is_full
        self.is_full = free < (ENOUGH if was_full else FULL)
        if self.is_full != was_full:
            log.warning("%s has %d MiB left", self._state, max(free, 0) >> 20)
        if free >= FULL:
            self._fill()

    def tidy(self, kept: Set[str]) -> None:
        """Remove the oldest logs of what has ended, as far as they are more than they may be."""
        remove_oldest(self._logs, kept, total(self._logs) - self._most)

    def give(self, kept: Set[str]) -> None:
        """The disk is full now: give the reserve to whoever has to write, and remove logs."""
        if self._reserve.exists():
            log.warning("no room is left on the disk of %s: using the reserve", self._state)
            self._reserve.unlink()
        self.look(kept)

    def _free(self) -> int:
        """How many bytes are free beside the reserve, or beside what is missing of it."""
        return shutil.disk_usage(self._state).free + self._held() - RESERVE

    def _held(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self._reserve.stat().st_size
        return 0

    def _fill(self) -> None:
        if self._held() >= RESERVE:
            return
        try:
            descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE)
            finally:
                os.close(descriptor)
        except OSError:  # Somebody was faster: there will be another look.
            self._reserve.unlink(missing_ok=True)
