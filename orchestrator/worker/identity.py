"""Who a worker is, so exactly that others can tell whether it is dead."""

from __future__ import annotations

import os
import platform
import secrets
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Seconds by which two readings of one process's start may differ: clocks are set.
SAME_START = 2


@dataclass(frozen=True, slots=True)
class Identity:
    """A process: pids come back, and another container has others; a start and a space do not."""

    host: str
    pid: int
    start: int
    space: str
    mark: str

    @classmethod
    def mine(cls) -> Identity:
        """This process."""
        return cls(
            platform.node().replace(":", "-"),
            os.getpid(),
            int(psutil.Process().create_time()),
            _space(),
            secrets.token_hex(4),
        )

    @classmethod
    def parse(cls, name: str) -> Identity:
        """The opposite of ``name``; what is no name is somebody of whom nothing is known."""
        try:
            host, pid, start, space, mark = name.split(":")
            return cls(host, int(pid), int(start), space, mark)
        except ValueError:
            return cls("", 0, 0, "", name)

    @property
    def name(self) -> str:
        return f"{self.host}:{self.pid}:{self.start}:{self.space}:{self.mark}"

    def is_dead(self) -> bool:
        """Whether it is certainly dead: only those who share its machine and pids can know."""
        if self.host != platform.node().replace(":", "-") or self.space != _space():
            return False
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            return abs(process.create_time() - self.start) > SAME_START
        except psutil.NoSuchProcess:
            return True


def _space() -> str:
    """The name of the space that pids are counted in."""
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return "-"
