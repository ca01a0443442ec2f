"""How much of the disk a task's directory takes, seen at little cost.  Part of the supervisor.

Standard library only; see ``spawner`` for how it is loaded.
"""
# Each module imported here makes every fork slower, and pathlib is a large one:

from __future__ import annotations

import contextlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: Files that one look takes in; the next goes on where it ended.
_AT_ONCE = 2_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Characters of a path, which may have 4096 bytes.
_FAR = 800
#: Seconds from one look to the next: while it takes much of what it may, and at most.
SOON, LATE = 1.0, 8.0
#: Bytes that any file counts as: also an empty one takes a place that others then lack.
LEAST = 4096


class DiskUse:
    """The use of the directory that we are in, which may be *limit* bytes; 0 is no limit."""

    def __init__(self, limit: int, now: float) -> None:
        self.limit, self.used, self._seen = limit, 0, 0
        #: When to look next; None for never.
        self.due = now + SOON if limit else None
        self._pause = SOON
        self._walk: Iterator[int] | None = None

    def is_too_much(self, now: float) -> bool:
        """Look, as far as one look goes; whether more is taken than may be."""
        walk = self._walk or _sizes(".")
        self._walk = walk
        for _ in range(_AT_ONCE):
            if (size := next(walk, None)) is None:
                self.used, self._seen, self._walk = self._seen, 0, None
                break
            self._seen += size
        self.used = max(self.used, self._seen)
        soon = self._walk is not None or 2 * self.used > self.limit
        self._pause = SOON if soon else min(LATE, 2 * self._pause)
        self.due = now + self._pause
        return self.used > self.limit


def _sizes(top: str) -> Iterator[int]:
    """The bytes on the disk of each file below *top*, or LEAST; a file of several names once.

    However deep it lies: so far down that a path would be too long, another one begins.
    """
    #: Directories to look at, each from an open one; where no path is, that one is to be closed.
    left: list[tuple[int | None, str]] = [(None, top)]
    linked = set()
    try:
        while left:
            base, path = left.pop()
            if base is not None and not path:
                os.close(base)
                continue
            with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
                here = os.open(path, _DIRECTORY, dir_fd=base)
                if len(path) > _FAR:
                    base, path = here, "."
                    left.append((here, ""))
                else:
                    opened.callback(os.close, here)
                for entry in opened.enter_context(os.scandir(here)):
                    with contextlib.suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        if entry.is_dir(follow_symlinks=False):
                            left.append((base, f"{path}/{entry.name}"))
                        elif status.st_nlink > 1:
                            if status.st_ino in linked:
                                continue
                            linked.add(status.st_ino)
                        yield max(status.st_blocks * 512, LEAST)
    finally:
        for base, path in left:
            if base is not None and not path:
                os.close(base)
