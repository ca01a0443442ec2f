"""What Muster writes is for who runs it alone, whatever the umask says."""

import os
from pathlib import Path
from typing import IO

UMASK = 0o077
"""Of the processes that stay: what they make without a word is private."""


def make_directory(directory: Path, mode: int) -> None:
    """Make *directory*, which is to have *mode*, unless it is there; others may pass above it.

    The database's user may have to: root cannot run a PostgreSQL.
    """
    if directory.exists():
        return
    make_directory(directory.parent, 0o755)
    directory.mkdir(exist_ok=True)
    directory.chmod(mode)


def open_log(log: Path) -> IO[bytes]:
    """Open *log* to append to it."""
    return open(log, "ab", opener=private)


def private(path: str, flags: int) -> int:
    """Open a file so that only its owner can, also one that was made with other rights."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def keep_others_out(directory: Path) -> None:
    """Have nobody else look into *directory*, which may be of a release before."""
    if directory.exists():
        directory.chmod(0o700)
