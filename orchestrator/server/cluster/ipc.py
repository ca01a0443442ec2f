"""What the processes of a cluster share, in ways that no death of one of them can break.

The queues and locks of ``multiprocessing`` are semaphores: a process that is killed while it
holds one leaves it taken, and an idle worker always holds the lock of the queue it waits on.
Here the kernel keeps everything, and gives it back when a process is gone.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import pickle
import select
import socket
import struct
import tempfile
import termios
import threading
import time
from multiprocessing import sharedctypes
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

#: A message longer than this goes through a file: datagrams have a limit.
LONGEST_DATAGRAM = 100_000

#: Seconds between two looks at whether there is room, and after which a reader counts as gone.
BEAT, PATIENCE = 0.01, 5.0

_AS_IS, _IN_FILE = b"=", b"@"

_stopping: Any = None


def share_stopping() -> None:
    """Make the one flag that all processes forked from here see."""
    global _stopping  # noqa: PLW0603 - one a cluster
    _stopping = sharedctypes.RawValue("b", 0)


def stop() -> None:
    """Tell all processes of the cluster that it stops."""
    if _stopping is not None:
        _stopping.value = 1


def stopping() -> bool:
    """Whether the cluster that this process belongs to stops; never elsewhere."""
    return _stopping is not None and bool(_stopping.value)


class Channel:
    """A queue between forked processes that has no lock: each message is one datagram.

    With *maxsize* a sender waits until what it sent before has been taken, unless the cluster
    stops.  Stands in for ``multiprocessing.Queue``.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._in, self._out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._bounded = maxsize > 0

    def put(self, message: object) -> None:
        """Send *message*.  One that nobody takes for long is dropped: work is asked for again."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        if self._bounded:
            while not self.empty() and not stopping():
                time.sleep(BEAT)
        data = _IN_FILE + _stored(data) if len(data) > LONGEST_DATAGRAM else _AS_IS + data
        deadline = time.monotonic() + PATIENCE
        while not self._sent(data):
            if time.monotonic() > deadline:
                log.error("nobody takes messages; one is dropped")
                return

    def get(self) -> Any:
        """Wait for the next message; each goes to one reader."""
        data = self._out.recv(LONGEST_DATAGRAM + 1024)
        if data[:1] == _IN_FILE:
            file = Path(data[1:].decode())
            content = file.read_bytes()
            file.unlink()
        else:
            content = data[1:]
        return pickle.loads(content)  # noqa: S301 - from our own processes

    def qsize(self) -> int:
        """One when something waits, else none: the kernel does not count messages."""
        return 0 if self.empty() else 1

    def empty(self) -> bool:
        waiting = fcntl.ioctl(self._out, termios.FIONREAD, struct.pack("i", 0))
        return bool(struct.unpack("i", waiting)[0] == 0)

    def close(self) -> None:
        """There is nothing to do: the kernel keeps what was put for those who still read."""

    def join_thread(self) -> None:
        """There is no thread: what was put has been sent."""

    def __del__(self) -> None:
        self._in.close()
        self._out.close()

    def _sent(self, data: bytes) -> bool:
        try:
            self._in.send(data, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            select.select([], [self._in], [], BEAT)
            time.sleep(BEAT)  # A full queue of the peer does not show in select.
            return False
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            time.sleep(BEAT)
            return False
        return True


def _stored(data: bytes) -> bytes:
    with tempfile.NamedTemporaryFile(prefix="muster-message-", delete=False) as file:
        file.write(data)
    return file.name.encode()


class ProcessLock:
    """A re-entrant lock between processes that the kernel releases when its holder dies.

    Record locks belong to the process: a forked child does not have its parent's.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the lock
        self._among_threads = threading.RLock()
        self._depth = 0
        self._pid = os.getpid()

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        if self._pid != os.getpid():  # What our parent held when it forked us is not ours.
            self._among_threads, self._depth, self._pid = threading.RLock(), 0, os.getpid()
        self._among_threads.acquire()
        if self._depth == 0:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
        self._depth += 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._among_threads.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self._file.close()


class Flag:
    """An event between forked processes that has no lock; stands in for multiprocessing.Event."""

    BEAT = 0.1

    def __init__(self) -> None:
        self._value = sharedctypes.RawValue("b", 0)

    def set(self) -> None:
        self._value.value = 1

    def is_set(self) -> bool:
        return bool(self._value.value)

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it is set, now or within *timeout* seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            rest = self.BEAT if end is None else min(self.BEAT, end - time.monotonic())
            if rest <= 0:
                break
            time.sleep(rest)
        return self.is_set()


def shared_value(typecode: str, initial: float) -> Any:
    """A number that processes share, under a lock that dies with its holder."""
    lock: Any = ProcessLock()  # It does what their locks do.
    return sharedctypes.Value(typecode, initial, lock=lock)
