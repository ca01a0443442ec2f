"""The journals that supervisors write, and the locks they hold."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Set
from pathlib import Path

log = logging.getLogger(__name__)

#: See ``supervisor`` for these forms.
_RECORD = re.compile(
    rb"exited\0[^\0]+\0-?\d+\0[a-z]*\0\d+\.\d{6}\0\d+\0\d+|failed\0[^\0]+\0\d+\0[^\0]*"
)


class Exits:
    """How tasks ended, as their supervisors have recorded it.

    Read only when nobody told: after a restart of the agent or the death of the spawner.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[Path, int] = {}
        self._records: dict[str, list[bytes]] = {}

    def find(self, execution: str) -> list[bytes] | None:
        """The record of *execution*: its kind and its fields."""
        if execution not in self._records:
            self._catch_up()
        return self._records.get(execution)

    def tidy(self, kept: Set[str]) -> None:
        """Forget what was read; remove journals to which nobody can write, with nothing *kept*."""
        self._records.clear()
        self._read.clear()
        for path in self._directory.iterdir():
            with contextlib.suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if kept.isdisjoint(_records(file.read())):
                    path.unlink()

    def _catch_up(self) -> None:
        for path in sorted(self._directory.iterdir()):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
                self._read[path] = self._read.get(path, 0) + len(whole) + len(newline)
                self._records |= _records(whole)


def _records(journal: bytes) -> dict[str, list[bytes]]:
    """Executions, and what *journal* says of each."""
    records = {}
    for line in filter(None, journal.split(b"\n")):
        if _RECORD.fullmatch(line):
            fields = line.split(b"\0")
            records[fields[1].decode()] = fields
        else:
            log.warning("passed over a record of a task's end that was cut short: %r", line[:200])
    return records


def is_locked(directory: Path) -> bool:
    """Whether a supervisor holds the lock on *directory*."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
