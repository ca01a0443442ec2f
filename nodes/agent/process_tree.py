"""Ends the processes of a task, all of them.  Part of the supervisor and the spawner.

Standard library only; see ``spawner`` for how it is loaded.
"""
# Each module imported here makes every fork slower, and pathlib is a large one:
# ruff: noqa: PTH123, PTH208

from __future__ import annotations

import contextlib
import math
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set

#: Seconds that processes of a task which are killed are waited for.
_PATIENCE = 2.0


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
        children = set(children_of(me)) - spared
        killed = [child for child in children if _kill(child)]
        if not killed or time.monotonic() >= until:
            return not children
        # Descendants of the killed come to us next.
        if not all(os.waitpid(child, os.WNOHANG)[0] for child in killed):
            time.sleep(pause)
            pause = min(2 * pause, 0.1)


def children_of(pid: int) -> list[int]:
    """The children of *pid*, which has one thread; none of a process that is over."""
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{pid}/task/{pid}/children", "rb") as listing,
    ):
        return [int(word) for word in listing.read().split()]
    return []


def _kill(child: int) -> bool:
    """Kill a child of ours and its group; return whether we may."""
    signal_group(child, signal.SIGKILL)
    try:
        os.kill(child, signal.SIGKILL)
    except PermissionError:
        return False
    return True


def kill_user(uid: int) -> None:
    """Kill every process that runs as the user *uid* of a task, one by one, until there is none."""
    until = time.monotonic() + _PATIENCE
    while uid > 0 and time.monotonic() < until:
        found = [
            pid for name in os.listdir("/proc") if name.isdigit() if _is_of(pid := int(name), uid)
        ]
        if not sum(_kill_if_of(pid, uid) for pid in found):
            return
        time.sleep(0.001)


def _kill_if_of(pid: int, uid: int) -> bool:
    """Kill *pid*, and no other process that may have got its number meanwhile; whether it lived."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if _is_of(pid, uid):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                return True
        finally:
            os.close(descriptor)
    return False


def _is_of(pid: int, uid: int) -> bool:
    """Whether *pid* lives and is the user *uid*, and nobody else in any way."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as status:
        lines = status.read().split(b"\n")
        is_dead = any(line.startswith((b"State:\tZ", b"State:\tX")) for line in lines)
        return not is_dead and b"Uid:" + 4 * (b"\t%d" % uid) in lines
    return False


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
