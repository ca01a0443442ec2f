"""Finding the spawner of a state directory, or starting it."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from ..facts import Fact

VERSION = b"4"
_PATIENCE = 15.0
_PACKET = 1 << 20
PROGRAM = Path(__file__).parent.parent / "spawner.py"


class NoSpawner(Exception):
    """The spawner could not be started: {detail}."""


def connect(
    state: Path, understand: Callable[[bytes], list[Fact]]
) -> tuple[socket.socket, list[Fact], dict[str, str]]:
    """A connection to the spawner, what it said meanwhile, and what it supervises.

    The last maps executions to their handles, empty while they have not begun.
    """
    _bury_the_dead()
    # What one spawner said before it died is true, whoever answers in the end.
    facts: list[Fact] = []
    for attempt in (_existing, _new, _existing, _new):
        if (link := attempt(state)) is None:
            continue
        link.settimeout(_PATIENCE)
        with contextlib.suppress(OSError):
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PACKET)
        try:
            live = _greet(link, understand, facts)
        except OSError as error:
            link.close()
            failure: object = error
            continue
        if live is not None:
            link.setblocking(False)
            return link, facts, live
        link.close()
        failure = f"see {state / 'spawner.log'}"
    raise NoSpawner(f"the spawner could not be started: {failure}")


def _greet(
    link: socket.socket, understand: Callable[[bytes], list[Fact]], facts: list[Fact]
) -> dict[str, str] | None:
    """What the spawner supervises; what else it says is added to *facts*."""
    hello = link.recv(_PACKET).split(b"\0")
    if hello[0] != b"hello":
        return None
    if hello[1] != VERSION:
        # Another version's: its tasks go on under their supervisors, new ones are ours.
        link.send(b"retire")
        return None
    link.send(b"sync\0attach")
    live: dict[str, str] = {}
    while packet := link.recv(_PACKET):
        kind, _, rest = packet.partition(b"\0")
        if kind == b"synced":
            return live
        if kind == b"live":
            execution, *handle = rest.decode().split("\0")
            live[execution] = ":".join(handle) if handle[0] != "0" else ""
        else:
            facts += understand(packet)
    return None


def _existing(state: Path) -> socket.socket | None:
    """A connection to the spawner that a former agent has left."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Socket addresses are at most 107 bytes long; state directories may be longer.
    directory = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        link.connect(f"/proc/self/fd/{directory}/spawner.sock")
    except OSError:
        link.close()
        return None
    finally:
        os.close(directory)
    return link


def _new(state: Path) -> socket.socket | None:
    """A connection to a new spawner, which inherits its other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    complaints = state / "spawner.log"
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with theirs:
        theirs.set_inheritable(True)
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(PROGRAM), str(state), str(theirs.fileno())],
            {"PATH": os.defpath},
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, str(complaints), append, 0o600),
            ),
            setsid=True,
        )
    return ours


def _bury_the_dead() -> None:
    """Reap spawners of ours that are over."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
