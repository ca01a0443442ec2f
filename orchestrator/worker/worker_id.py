"""Who a worker is, so exactly that others can tell whether it is dead."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Where the kernel says what runs.  Without it nobody is known to be dead.
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class WorkerId:
    """A process: pids come back, and another container has others; a start and a space do not.

    ``start`` is in the kernel's ticks since the machine started, which no setting of the clock
    changes.  ``space`` names the start of the machine and the namespace that its pids are counted
    in; two machines never have the same, whatever their names.
    """

    host: str
    pid: int
    start: int
    space: str
    mark: str

    @classmethod
    def mine(cls, proc: Path = PROC) -> WorkerId:
        """This process."""
        _, start = _state_and_start(proc, os.getpid()) or ("", 0)
        return cls(_host(), os.getpid(), start, _space(proc), secrets.token_hex(4))

    @classmethod
    def parse(cls, name: str) -> WorkerId:
        """The opposite of ``name``; what is no name is somebody of whom nothing is known."""
        try:
            host, pid, start, space, mark = name.split(":")
            return cls(host, int(pid), int(start), space, mark)
        except ValueError:
            return cls("", 0, 0, "", name)

    @property
    def name(self) -> str:
        return f"{self.host}:{self.pid}:{self.start}:{self.space}:{self.mark}"

    def is_dead(self, proc: Path = PROC) -> bool:
        """Whether it is certainly dead: only those who share its machine and pids can know."""
        if not self.space or self.space != _space(proc):
            return False
        found = _state_and_start(proc, self.pid)
        if found is None:  # It may also be hidden from us.
            return not psutil.pid_exists(self.pid)
        state, start = found
        return state in "ZX" or start != self.start


def _host() -> str:
    return platform.node().replace(":", "-")


def _state_and_start(proc: Path, pid: int) -> tuple[str, int] | None:
    """What the kernel says of a process; the name before it may contain anything."""
    try:
        fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[0].decode(), int(fields[19])


def _space(proc: Path) -> str:
    """The name of this start of the machine and of the namespace of our pids; "" if unknown."""
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        pids = (proc / "self/ns/pid").stat()
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {pids.st_dev} {pids.st_ino}".encode()).hexdigest()[:12]
