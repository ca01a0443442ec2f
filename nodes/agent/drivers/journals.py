"""The journals that supervisors write, and the locks that they hold on them."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import re
import struct
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..facts import Exited
from ..logs import readable

log = logging.getLogger(__name__)

#: See ``supervisor`` for these forms.
_RECORD = re.compile(
    rb"begun\0[^\0]+\0\d+"
    # Two amounts more since limits are kept to.
    rb"|exited\0[^\0]+\0-?\d+\0[a-z]*\0\d+\.\d{6}\0\d+\0\d+(?:\0\d+\0\d+)?"
    rb"|failed\0[^\0]+\0\d+\0[^\0]*"
)
#: struct flock: type, whence, start, length, pid.
_FLOCK = struct.Struct("hhqqi4x")


@dataclass(frozen=True)
class Begun:
    """The task was begun, and no end of it is recorded.  *supervisor* is 0 unless it lives."""

    supervisor: int


class Journals:
    """What was begun and how it ended, as the supervisors have recorded it.

    Read only when nobody told: after a restart of the agent or the death of the spawner.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        #: How far each journal was read, and the executions that it tells of.
        self._read: dict[Path, int] = {}
        self._told: dict[Path, set[str]] = {}
        self._closed: set[Path] = set()
        self._ends: dict[str, list[bytes]] = {}
        #: What has no end yet: where it was begun, by whom; and what each supervisor began last.
        self._begun: dict[str, dict[Path, int]] = {}
        self._last: dict[tuple[Path, int], str] = {}

    def find(self, execution: str) -> list[bytes] | Begun | None:
        """The record of its end, kind and fields; or that it was begun; None if it never was."""
        self._catch_up()
        found = self._find(execution)
        if isinstance(found, Begun) and not found.supervisor:
            self._catch_up()  # It may have ended between the two looks.
            found = self._find(execution)
        return found

    def running(self) -> dict[str, int]:
        """Every execution that was begun, has no end, and whose supervisor lives; and its pid."""
        self._catch_up()
        return {name: pid for name in self._begun if (pid := self._supervisor(name))}

    def over(self) -> dict[str, list[bytes] | None]:
        """Every execution that does not run any more: the record of its end, if there is one."""
        running = self.running().keys()
        return {
            name: self._ends.get(name) if name not in self._begun else None
            for name in (self._ends.keys() | self._begun.keys()) - running
        }

    def tidy(self, kept: Set[str]) -> None:
        """Forget all but what is *kept*; remove journals that nobody writes and that tell no more.

        What is not kept now never will be.
        """
        for path in self._directory.iterdir():
            with contextlib.suppress(OSError):
                if path not in self._closed:
                    with path.open("rb") as file:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        self._read_on(path, file, closed=True)
                        self._close(path, kept)
                else:
                    self._close(path, kept)
        self._told = {path: told & kept for path, told in self._told.items()}
        self._ends = {name: end for name, end in self._ends.items() if name in kept}
        self._begun = {name: begun for name, begun in self._begun.items() if name in kept}
        self._last = {who: name for who, name in self._last.items() if name in kept}

    def _close(self, path: Path, kept: Set[str]) -> None:
        """Nobody writes to it any more: remove it unless it tells of what is *kept*."""
        self._closed.add(path)
        if self._told.get(path, set()).isdisjoint(kept):
            path.unlink()
            self._closed.discard(path)
            self._told.pop(path, None)
            self._read.pop(path, None)

    def _find(self, execution: str) -> list[bytes] | Begun | None:
        end = self._ends.get(execution)
        # Of two attempts the one that failed tells nothing about the other.
        if execution in self._begun and (end is None or end[0] == b"failed"):
            return Begun(self._supervisor(execution))
        return end

    def _supervisor(self, execution: str) -> int:
        """The pid of the living supervisor that has *execution* in hand, or 0."""
        for path, pid in self._begun[execution].items():
            if self._last.get((path, pid)) == execution and _holds(path, pid):
                return pid
        return 0

    def _catch_up(self) -> None:
        for path in sorted(self._directory.iterdir()):
            if path not in self._closed:
                with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                    self._read_on(path, file)

    def _read_on(self, path: Path, file: BinaryIO, *, closed: bool = False) -> None:
        """Take in what was written to the journal since it was last read."""
        file.seek(self._read.get(path, 0))
        data = file.read()
        if not closed:  # What has no end yet may get it.
            data = data[: data.rfind(b"\n") + 1]
        self._read[path] = self._read.get(path, 0) + len(data)
        # A record ends with a newline and the next begins with one: without both it was cut.
        for line, after in itertools.pairwise([*data.split(b"\n"), b"?"]):
            if not line:
                continue
            if not after and _RECORD.fullmatch(line):
                self._take(path, line.split(b"\0"))
            else:
                log.warning("passed over a record of a task that was cut short: %r", line[:200])

    def _take(self, path: Path, record: list[bytes]) -> None:
        execution = record[1].decode()
        self._told.setdefault(path, set()).add(execution)
        if record[0] == b"begun":
            self._begun.setdefault(execution, {})[path] = int(record[2])
            self._last[path, int(record[2])] = execution
            return
        if (begun := self._begun.get(execution)) is not None:
            begun.pop(path, None)
            if not begun:
                del self._begun[execution]
        if record[0] == b"exited" or execution not in self._ends:
            self._ends[execution] = record


def exited(execution: str, fields: list[bytes]) -> Exited:
    """The end of a task, as a supervisor words it.

    *fields*: id, status, why, seconds, both sizes, limit and use if they are told, both tails.
    """
    status, ran = int(fields[1]), float(fields[3])
    sizes = int(fields[4]), int(fields[5])
    *amounts, stdout, stderr = fields[6:]
    limit, used = map(int, amounts or (0, 0))
    return Exited(
        execution,
        status,
        why=fields[2].decode(),
        ran=ran,
        stdout=readable(stdout, sizes[0]),
        stderr=readable(stderr, sizes[1]),
        stdout_size=sizes[0],
        stderr_size=sizes[1],
        limit=limit,
        used=used,
    )


def _holds(path: Path, pid: int) -> bool:
    """Whether the process *pid* holds the lock of a supervisor on the journal."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        ask = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, pid, 1, 0)
        kind, _, _, _, holder = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, ask))
        return bool(kind != fcntl.F_UNLCK and holder == pid)
    return False
