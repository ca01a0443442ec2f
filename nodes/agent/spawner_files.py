"""The files that the spawner writes: journals, and its log.  Part of the spawner.

Standard library only; see there for how it is loaded.
"""
# Each module imported here makes every fork slower, and pathlib is a large one:
# ruff: noqa: PTH208

from __future__ import annotations

import contextlib
import fcntl
import os

#: Beyond so many bytes spawner.log begins anew.
_LOG_BYTES = 1 << 20


def new_journal() -> int:
    """The next journal.  Shared locks say that somebody may still write to it."""
    number = max((int(name) for name in os.listdir("exits") if name.isdigit()), default=0)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    while True:
        number += 1
        with contextlib.suppress(FileExistsError):
            journal = os.open(f"exits/{number:09d}", flags, 0o600)
            fcntl.flock(journal, fcntl.LOCK_SH)
            if os.fstat(journal).st_nlink:
                return journal
            os.close(journal)  # The agent took it for one that nobody writes to any more.


def bound_log() -> None:
    """Begin spawner.log anew when it is too long: what is written next counts more."""
    with contextlib.suppress(OSError):  # Whoever starts us by hand may read it elsewhere.
        if os.fstat(2).st_size > _LOG_BYTES:
            os.ftruncate(2, 0)
