"""Live logs: what a watcher asked for, within the credit it granted."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ..protocol.messages import LogChunk, LogEnd, Watch
from .logs import STREAMS, LogFile

CHUNK = 64 * 1024
#: How long to wait before looking again for what a task has written, in seconds.
_SOON, _AT_LAST = 0.01, 0.25
#: How often is looked, while a task writes nothing, whether it went on elsewhere: on a full disk.
_LOOK = 2.0


class Watches:
    """The logs that somebody watches now.  Nothing here costs anything while nobody does."""

    def __init__(
        self,
        logs: Path | None,
        is_live: Callable[[str], bool],
        send: Callable[[LogEnd], None],
        send_chunk: Callable[[LogChunk], None],
    ) -> None:
        self._logs, self._is_live = logs, is_live
        self._send, self._send_chunk = send, send_chunk
        self._watched: dict[str, _Watched] = {}
        #: The last ones of this link: what is granted to them crossed our saying that they ended.
        self._ended: deque[str] = deque(maxlen=1000)

    def follow(self, watch: Watch) -> None:
        """Begin to stream, or go on with more credit."""
        if (watched := self._watched.get(watch.watch)) is not None:
            watched.credit += watch.credit
            watched.granted.set()
            return
        if watch.watch in self._ended:
            return
        if self._logs is None or watch.stream not in STREAMS:
            reason = f"there is no stream {watch.stream!r} of {watch.execution} here"
            self._end(watch, reason)
            return
        watched = self._watched[watch.watch] = _Watched(watch)
        watched.task = asyncio.get_running_loop().create_task(self._stream(watched, self._logs))

    def unfollow(self, watch: str) -> None:
        if (watched := self._watched.pop(watch, None)) is not None and watched.task is not None:
            watched.task.cancel()

    def clear(self) -> None:
        """The link is gone, and every watcher with it."""
        for watch in list(self._watched):
            self.unfollow(watch)
        self._ended.clear()

    def _end(self, watch: Watch, reason: str) -> None:
        self._watched.pop(watch.watch, None)
        self._ended.append(watch.watch)
        self._send(LogEnd(watch.epoch, watch.watch, reason))

    async def _stream(self, watched: _Watched, logs: Path) -> None:
        watch = watched.watch
        file = LogFile(logs, watch.execution, watch.stream)
        try:
            reason = await self._pump(watched, file)
        except OSError as error:
            reason = f"the log cannot be read: {error.strerror}"
        finally:
            file.close()
        self._end(watch, reason)

    async def _pump(self, watched: _Watched, file: LogFile) -> str:
        watch = watched.watch
        offset = watch.offset if watch.offset >= 0 else max(0, file.size() + watch.offset)
        # Who does not follow reads what there is now: a task may print faster than it is read.
        end = sys.maxsize if watch.follow else file.size()
        began, pause = offset, _SOON
        clock, look_at = asyncio.get_running_loop().time, 0.0
        while offset < end:
            if watched.credit <= 0:
                watched.granted.clear()
                await watched.granted.wait()
                continue
            live = self._is_live(watch.execution)  # Before reading: what comes after is the end.
            limit = min(CHUNK, watched.credit, end - offset)
            at, data = offset, file.read_on(offset, limit)
            if not data and (clock() >= look_at or not (live and watch.follow)):
                at, data = file.read(offset, limit)
                look_at = clock() + _LOOK
            if data:
                self._send_chunk(LogChunk(watch.epoch, watch.watch, at, data))
                watched.credit -= len(data)
                offset, pause = at + len(data), _SOON
                await asyncio.sleep(0)
            elif live and watch.follow:
                await asyncio.sleep(pause)
                pause = min(_AT_LAST, pause * 2)
            else:
                break
        if offset == began and not self._is_live(watch.execution) and not file.size():
            return "nothing was written, or it is no longer kept"
        return ""


class _Watched:
    def __init__(self, watch: Watch) -> None:
        self.watch, self.credit = watch, watch.credit
        self.granted = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
