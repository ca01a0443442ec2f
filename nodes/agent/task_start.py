"""Starts the first process of a task, as whom it is to run.  Part of the supervisor.

Standard library only; see ``spawner`` for how it is loaded.
"""
# Each module imported here makes every fork slower, and pathlib is a large one:
# ruff: noqa: PTH110, PTH112, PTH118

from __future__ import annotations

import errno
import os
import resource
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_RESET = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)


def spawn(command: Sequence[bytes], env: Mapping[bytes, bytes], out: int, err: int) -> int:
    """Start it as who we are, in a session of its own; raises the OSError that exec failed with."""
    return os.posix_spawn(
        find(command[0], env.get(b"PATH", b"")),
        list(command),
        env,
        file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, err, 2),
        ),
        setsid=True,
        setsigmask=(),
        setsigdef=_RESET,
    )


def limit_resources(limits: Mapping[int, int]) -> None:
    """Limit what this process and what it starts may use; never to more than it has.  0: do not."""
    for kind, most in limits.items():
        if most or kind == resource.RLIMIT_CORE:
            soft, hard = resource.getrlimit(kind)
            hard = most if hard == resource.RLIM_INFINITY else min(hard, most)
            soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
            resource.setrlimit(kind, (soft, hard))


def find(program: bytes, path: bytes) -> bytes:
    """The file that *program* means, by the task's own PATH, not by ours."""
    if b"/" in program:
        return program
    found = None
    for directory in path.split(b":"):
        candidate = os.path.join(directory or b".", program)
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
        if os.path.exists(candidate):
            found = candidate
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
