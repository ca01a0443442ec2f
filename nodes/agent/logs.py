"""The log files of tasks: segments named by the offset of their first byte, and their end."""

from __future__ import annotations

import codecs
import contextlib
import os
import time
from collections import deque
from collections.abc import Set
from pathlib import Path

from ..protocol.messages import TAIL

STREAMS = ("stdout", "stderr")
#: The logs of as many executions, and for as long after their end, are kept.
KEPT = 500
KEPT_FOR = 3600.0


def readable(tail: bytes, size: int) -> str:
    """The end of a stream as text that has as many bytes, so that offsets stay what they are.

    Half a character at its cut is left out; ``?`` stands for each byte that is no text, and NUL.
    """
    if size > len(tail):
        cut = 0
        while cut < 3 and cut < len(tail) and tail[cut] & 0xC0 == 0x80:
            cut += 1
        tail = tail[cut:]
    return tail.decode("utf-8", "byte-by-byte").replace("\0", "?")


def _byte_by_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "?" * (error.end - error.start), error.end


codecs.register_error("byte-by-byte", _byte_by_byte)


class LogFile:
    """One stream of one execution, read by offset over its segments."""

    def __init__(self, directory: Path, execution: str, stream: str) -> None:
        self._directory, self._prefix = directory, f"{execution}.{stream}."
        self._segments: list[int] = []
        self._open: tuple[int, int] | None = None  # (offset of the segment, descriptor)

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        """Up to *limit* bytes from *offset*, or from the next that still exist, and their offset.

        Nothing is returned as ``(offset, b"")``: nothing was written there yet.
        """
        if data := self.read_on(offset, limit):
            return offset, data
        self._segments = self._list()
        for start in reversed(self._segments):
            if start <= offset:
                if data := self._from(start, offset, limit):
                    return offset, data
                break
        for start in self._segments:
            if start > offset and (data := self._from(start, start, limit)):
                return start, data
        return offset, b""

    def read_on(self, offset: int, limit: int) -> bytes:
        """Up to *limit* bytes from exactly *offset*, if it is where the last ones have ended.

        Unlike ``read`` it costs the same however many logs there are.
        """
        return self._from_open(offset, limit) or self._from(offset, offset, limit)

    def size(self) -> int:
        """How many bytes the stream has had so far."""
        for start in reversed(self._list()):
            with contextlib.suppress(FileNotFoundError):
                return start + (self._directory / f"{self._prefix}{start:015d}").stat().st_size
        return 0

    def tail(self) -> bytes:
        """The last TAIL bytes."""
        size, data = self.size(), b""
        offset = max(0, size - TAIL)
        while True:
            offset, more = self.read(offset, TAIL)
            if not more:
                return data[-TAIL:]
            data, offset = data + more, offset + len(more)

    def close(self) -> None:
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def _from_open(self, offset: int, limit: int) -> bytes:
        if self._open is None or offset < self._open[0]:
            return b""
        return os.pread(self._open[1], limit, offset - self._open[0])

    def _from(self, start: int, offset: int, limit: int) -> bytes:
        if self._open is None or self._open[0] != start:
            try:
                path = self._directory / f"{self._prefix}{start:015d}"
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return b""
            self.close()
            self._open = (start, descriptor)
        return self._from_open(offset, limit)

    def _list(self) -> list[int]:
        names = os.listdir(self._directory)  # noqa: PTH208  Three times as quick.
        ends = (name[len(self._prefix) :] for name in names if name.startswith(self._prefix))
        return sorted(int(end) for end in ends if end.isdigit())


def tails(directory: Path, execution: str) -> list[bytes]:
    """The last bytes of both its streams."""
    found = []
    for stream in STREAMS:
        file = LogFile(directory, execution, stream)
        found.append(file.tail().replace(b"\0", b""))
        file.close()
    return found


def total(directory: Path) -> int:
    """How much of the disk all logs take."""
    return sum(taken for taken, _, _ in _sizes(directory).values())


def remove_oldest(directory: Path, spared: Set[str], amount: int) -> None:
    """Remove logs of at least *amount* bytes: whose end was written first goes first.

    None of the executions in *spared*.
    """
    if amount <= 0:
        return
    found = _sizes(directory)
    for execution in sorted(found.keys() - spared, key=lambda it: found[it][1]):
        taken, _, files = found[execution]
        for file in files:
            Path(file).unlink(missing_ok=True)
        if (amount := amount - taken) <= 0:
            return


def _sizes(directory: Path) -> dict[str, tuple[int, float, list[str]]]:
    """Of each execution: what its logs take of the disk, when they were written last, the files."""
    found: dict[str, tuple[int, float, list[str]]] = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for file in entries:
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                taken, last, files = found.get(file.name.rsplit(".", 2)[0], (0, 0.0, []))
                found[file.name.rsplit(".", 2)[0]] = (
                    taken + status.st_blocks * 512,
                    max(last, status.st_mtime),
                    [*files, file.path],
                )
    return found


class Keeper:
    """Removes the logs of executions that have been over for long, or of which there are many."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._retired: deque[tuple[float, str]] = deque()

    def retire(self, execution: str) -> None:
        """The execution is over and acknowledged: its logs are kept only for a while from now."""
        self._retired.append((time.monotonic(), execution))

    def tidy(self, kept: Set[str]) -> None:
        """Remove what is due, except of the executions in *kept*."""
        due, now = set(), time.monotonic()
        while self._retired and (len(self._retired) > KEPT or self._retired[0][0] < now - KEPT_FOR):
            due.add(self._retired.popleft()[1])
        spared = kept | {execution for _, execution in self._retired}
        found = {name: it for name, it in _sizes(self._directory).items() if name not in spared}
        # Of a former agent's executions only the age of their files is known.
        newest = sorted(found.keys() - due, key=lambda name: found[name][1], reverse=True)
        due.update(newest[KEPT - len(self._retired) :])
        for execution, (_, written, files) in found.items():
            if execution in due or written < time.time() - KEPT_FOR:
                for file in files:
                    Path(file).unlink(missing_ok=True)
