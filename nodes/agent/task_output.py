"""Keeps what a task prints: its last bytes, and segments on disk.  Part of the supervisor.

Standard library only; see ``spawner`` for how it is loaded.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import time

TYPE_CHECKING = False
# The spawner knows no packages: to it these are modules beside it.
if TYPE_CHECKING or __package__:
    from .mask import Mask
else:
    from mask import Mask

SEGMENT = 8 << 20
SEGMENTS = 4
TAIL = 8 * 1024
#: How long output is still read after the last process of the task is gone, in seconds.
_DRAIN = 1.0
_PIPE = 1 << 20
_F_SETPIPE_SZ = 1031


class Stream:
    """One output stream: its last bytes here, as much as is kept of it in segments on disk.

    What is one of the *secrets* is masked before it is anywhere.
    """

    def __init__(self, logs: int, prefix: str, secrets: list[bytes] | None = None) -> None:
        self.size, self.tail = 0, b""
        self._mask = Mask(secrets) if secrets else None
        self._logs, self._prefix = logs, prefix
        self._file, self._segment, self._written = -1, "", 0
        self._segments: list[str] = []

    def take(self, data: bytes) -> None:
        """Keep what the task has printed."""
        self._keep(data if self._mask is None else self._mask.take(data))

    def finish(self) -> None:
        """The task prints no more: keep what might have been the beginning of a secret."""
        if self._mask is not None:
            self._keep(self._mask.finish())
        self.close()

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        self.tail = data[-TAIL:] if len(data) >= TAIL else (self.tail + data)[-TAIL:]
        try:
            self._write(data)
        except OSError:
            # A full disk must not hurt the task: these bytes are missing, the offsets show it.
            if self._file >= 0 and not self._written:
                with contextlib.suppress(OSError):
                    os.unlink(self._segment, dir_fd=self._logs)
            self.close()
        self.size += len(data)
        if self._written >= SEGMENT:
            self.close()

    def _write(self, data: bytes) -> None:
        if self._file < 0:
            self._segment = f"{self._prefix}{self.size:015d}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._file = os.open(self._segment, flags, 0o600, dir_fd=self._logs)
            self._written = 0
        wrote = os.write(self._file, data)
        # Only now it counts: an older one must not go for a segment that stays empty.
        if wrote and not self._written:
            self._segments.append(self._segment)
            if len(self._segments) > SEGMENTS:
                os.unlink(self._segments.pop(0), dir_fd=self._logs)
        self._written += wrote
        if wrote < len(data):
            raise OSError(errno.ENOSPC, "short write")

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file, self._written = -1, 0


def read(descriptor: int, streams: dict[int, Stream], poll: select.poll) -> None:
    """Take what the task has written to *descriptor*; at its end close it."""
    stream = streams[descriptor]
    data = os.read(descriptor, 65536 if stream.size < _PIPE else _PIPE)
    if data:
        if stream.size == 0 and len(data) >= 32768:
            with contextlib.suppress(OSError):  # Talkative: fewer, larger reads.
                fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _PIPE)
        stream.take(data)
    else:
        poll.unregister(descriptor)
        os.close(descriptor)
        del streams[descriptor]


def drain(streams: dict[int, Stream]) -> None:
    """Take what is still in the pipes.  Nobody writes to them any more."""
    until = time.monotonic() + _DRAIN
    poll = select.poll()
    for descriptor in streams:
        poll.register(descriptor, select.POLLIN)
    while streams and time.monotonic() < until:
        ready = poll.poll(_DRAIN * 1000)
        for descriptor, _ in ready:
            read(descriptor, streams, poll)
