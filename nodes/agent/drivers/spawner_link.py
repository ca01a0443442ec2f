"""Finding the spawner of a state directory, or starting it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ...protocol.messages import Task
from ..facts import Fact
from ..records import Entry
from ..walls import Walls

VERSION = b"7"
#: The PATH of tasks that say no other.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PATIENCE = 15.0
#: So many seconds a spawner that is stopped may stay so before the agent gives up its start.
_STOPPED = 3.0
#: The spawner is asked every so many seconds; it is deaf when it says nothing so many times.
LOOK, MISSED = 2.0, 3
_PACKET = 1 << 20
#: struct ucred: pid, uid, gid.
_CREDENTIALS = struct.Struct("iii")
PROGRAM = Path(__file__).parent.parent / "spawner.py"


class NoSpawner(Exception):
    """The spawner could not be started, and why; later it may be."""


class SpawnerStopped(NoSpawner):
    """The spawner is there and stopped: somebody has to let it go on, or end it."""


def start_packet(entry: Entry, task: Task, directory: Path, walls: Walls) -> str:
    """The order to start *task* behind *walls*; see ``spawner`` for its form."""
    home, told = walls.home(directory), walls.words(task, entry.resources)
    env = {"PATH": PATH, "HOME": home, "LANG": "C.UTF-8", **task.env}
    secret = {name: value for name, value in entry.secret_values.items() if name in task.env}
    env = secret | {name: value for name, value in env.items() if name not in secret}
    words = (
        "start",
        entry.execution,
        "" if entry.timeout is None else repr(entry.timeout),
        repr(entry.grace),
        str(len(told)),
        *told,
        str(len(task.command)),
        *task.command,
        str(len(secret)),
        *(f"{name}={value}" for name, value in env.items()),
    )
    return "\0".join(words)


class SpawnerProbe:
    """Whether the spawner answers, asked every LOOK seconds by *ask*; *changed* hears of it."""

    def __init__(self, ask: Callable[[], None], changed: Callable[[], None]) -> None:
        self._ask, self._changed = ask, changed
        self._heard, self._missed = True, 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_deaf(self) -> bool:
        return self._missed >= MISSED

    def heard(self) -> None:
        """It has said something, or it is another."""
        self._heard = True
        if self.is_deaf:
            self._missed = 0
            self._changed()

    def look(self) -> None:
        """Look now and, until ``close``, from time to time."""
        self._timer = asyncio.get_running_loop().call_later(LOOK, self.look)
        if self._heard:  # Otherwise it still has to answer the last time.
            self._heard, self._missed = False, 0
            self._ask()
        else:
            # Looks are counted, not seconds: when this process was stopped it has heard nothing.
            self._missed += 1
            if self._missed == MISSED:
                self._changed()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


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
        if attempt is _existing:
            _wait_while_stopped(link, state)
        try:
            live = _greet(link, understand, facts)
        except OSError as error:
            link.close()
            failure = f"it does not answer: {error}"
            continue
        if live is not None:
            link.setblocking(False)
            return link, facts, live
        link.close()
        failure = f"{_last_line(state / 'spawner.log')}; see {state / 'spawner.log'}"
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


def _wait_while_stopped(link: socket.socket, state: Path) -> None:
    """Give a spawner that is stopped a moment; raises SpawnerStopped if it stays so."""
    peer = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, _, _ = _CREDENTIALS.unpack(peer)
    until = time.monotonic() + _STOPPED
    while _is_stopped(pid):
        if time.monotonic() > until:
            link.close()
            raise SpawnerStopped(
                f"the spawner of {state}, process {pid}, is stopped and does not answer: "
                f"let it go on with `kill -CONT {pid}`, or end it with `kill -KILL {pid}`; "
                "its tasks go on either way"
            )
        time.sleep(0.05)


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in b"Tt"
    return False


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        if lines := file.read().decode(errors="replace").split("\n")[:-1]:
            return lines[-1]
    return "it says nothing"


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
    """A connection to a new spawner, which inherits its other end; raises NoSpawner."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    complaints = state / "spawner.log"
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with theirs:
        theirs.set_inheritable(True)
        try:
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
        except OSError as error:
            ours.close()
            raise NoSpawner(f"the spawner could not be started: {error.strerror}") from None
    return ours


def _bury_the_dead() -> None:
    """Reap spawners of ours that are over."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
