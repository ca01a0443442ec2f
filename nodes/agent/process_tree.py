"""Ends the processes of a task, all of them.  Part of the supervisor and the spawner.

Standard library only; see ``spawner`` for how it is loaded.
"""
# Each module imported here makes every fork slower, and pathlib is a large one:
# ruff: noqa: PTH123

from __future__ import annotations

import contextlib
import math
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set


def kill_children(spared: Set[int] = frozenset(), within: float = math.inf) -> bool:
    """Kill what came to us as orphans, and what comes after them; return whether nothing is left.

    What we may not kill, as another user's, is left.  What does not die, since it waits for a
    device, is waited for *within* so many seconds.
    """
    me, until, pause = os.getpid(), time.monotonic() + within, 0.0005
    while True:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        with open(f"/proc/self/task/{me}/children", "rb") as listing:
            children = {int(word) for word in listing.read().split()} - spared
        killed = [child for child in children if _kill(child)]
        if not killed or time.monotonic() >= until:
            return not children
        # Descendants of the killed come to us next.
        if not all(os.waitpid(child, os.WNOHANG)[0] for child in killed):
            time.sleep(pause)
            pause = min(2 * pause, 0.1)


def _kill(child: int) -> bool:
    """Kill a child of ours and its group; return whether we may."""
    signal_group(child, signal.SIGKILL)
    try:
        os.kill(child, signal.SIGKILL)
    except PermissionError:
        return False
    return True


def signal_group(pid: int, number: int) -> None:
    """Send a signal to the group of *pid*, if there is one and we may."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def start_ticks(pid: int) -> int:
    """When *pid* was started; with it, the pid names one process for ever."""
    file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(file, 1024).rpartition(b")")[2].split(None, 20)[19])
    finally:
        os.close(file)
