"""Children that end with their parent, however the parent ends."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

# Loaded here, before any fork: between fork and exec nothing may be imported.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1

LARGEST_LOG = 4 << 20
"""Bytes; a log beyond is set aside, so that a program that prints without end fills no disk."""


def die_with(parent: int, by: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send *by* to this process when *parent*, which started it, is gone.

    Only Linux can; elsewhere this does nothing. The kernel watches the parent's *thread* that
    forked, so children are started from a thread that lives as long as its process.
    """
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:  # It died between the fork and the line above.
        os.kill(os.getpid(), by)


def start(
    command: Sequence[str | Path],
    *,
    by: signal.Signals = signal.SIGTERM,
    environ: Mapping[str, str] | None = None,
    owner: tuple[int, int] | None = None,
    output: IO[bytes] | int | None = None,
    input: IO[bytes] | int = subprocess.DEVNULL,  # noqa: A002 - as subprocess calls it
    directory: Path | str | None = None,
) -> subprocess.Popen[bytes]:
    """Start *command*, which *by* ends with us, in a session of its own: Ctrl-C reaches only us.

    *owner* is the user and group to run as, for those who may choose.
    """
    as_whom: dict[str, Any] = {}
    if owner is not None:
        as_whom = {"user": owner[0], "group": owner[1], "extra_groups": []}
    return subprocess.Popen(
        [str(word) for word in command],
        stdin=input,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        env=environ,
        cwd=directory,
        start_new_session=True,
        # Runs after the change of user, which would have cleared the parent-death signal.
        preexec_fn=_ending_with(os.getpid(), by),  # noqa: PLW1509 - two system calls, no locks
        **as_whom,
    )


def last_printed(log: Path, since: int, most: int = 10_000) -> str:
    """The end of what was printed into *log* after byte *since*; nothing if it is not there."""
    with suppress(FileNotFoundError), log.open("rb") as file:
        file.seek(max(since, log.stat().st_size - most))
        return file.read().decode(errors="replace")
    return ""


def set_aside_if_large(log: Path) -> bool:
    """Empty *log* if it is large, and keep a copy beside it, as .log.1; whether that was done.

    Its writer appends and goes on in the same file, so what it says meanwhile may be lost. Where
    there is no space for the copy there is none, and an OSError, but the log is emptied all the
    same.
    """
    try:
        if log.stat().st_size <= LARGEST_LOG:
            return False
    except FileNotFoundError:
        return False
    kept = log.with_suffix(".log.1")
    try:
        kept.unlink(missing_ok=True)
        shutil.copy(log, kept)  # With its mode: for nobody else, either.
    finally:
        os.truncate(log, 0)
    return True


def _ending_with(parent: int, by: signal.Signals) -> Callable[[], None]:
    return lambda: die_with(parent, by)


def end(child: subprocess.Popen[bytes], *, by: signal.Signals, within: float) -> None:
    """Ask *child* to end, and after *within* seconds kill it and its whole process group."""
    if child.poll() is None:
        child.send_signal(by)
    try:
        child.wait(within)
    except subprocess.TimeoutExpired:
        kill_group(child)
        child.wait()


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process group that *child* led."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
