"""Live logs, asked of a node and fed to whoever reads them, no faster than they read."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import TypeVar

import msgspec

from .protocol.messages import FromServer, LogChunk, LogEnd, Unwatch, Watch
from .shared_watch import SharedWatch

#: Bytes on their way to one reader, at most.
CREDIT = 256 * 1024
#: Bytes of one piece that is handed on, at most, unless the node sent more at once.
LARGEST = 64 * 1024
#: Chunks that wait for one reader as they came; more of them are joined.
MOST_APART = 16
#: Logs of one node that are watched at once, at most.
MOST = 64
#: Seconds after which a reader of a log that nothing comes of hears that the server is there.
HEARTBEAT = 5.0

T = TypeVar("T")


class NotConnected(Exception):
    """The logs of the node cannot be read now; the message says why, as half a sentence."""

    def __init__(self, why: str = "the node is not connected") -> None:
        super().__init__(why)


class SessionEnded(NotConnected):
    """The node was there, and its session ended while its logs were followed."""


class TooManyWatches(Exception):
    """The logs of this node are watched by as many readers as it serves at once."""


async def with_heartbeats(
    pieces: AsyncIterator[T], every: float = HEARTBEAT
) -> AsyncIterator[T | None]:
    """What *pieces* has, and None each time that nothing has come of it for so many seconds."""
    async with aclosing(pieces):  # type: ignore[type-var]  # An async generator.
        coming = asyncio.ensure_future(anext(pieces, _OVER))
        try:
            while True:
                await asyncio.wait({coming}, timeout=every)
                if not coming.done():
                    yield None
                elif (piece := coming.result()) is _OVER:
                    return
                else:
                    yield piece  # type: ignore[misc]  # Not the end.
                    coming = asyncio.ensure_future(anext(pieces, _OVER))
        finally:
            coming.cancel()
            await asyncio.wait({coming})


_OVER = object()


class Watches:
    """What is watched over one session."""

    def __init__(self, epoch: int, say: Callable[[FromServer], Awaitable[None]]) -> None:
        self._epoch, self._say = epoch, say
        self._numbers = itertools.count(1)
        self._open: dict[str, _Reader] = {}
        self._shared: dict[tuple[str, str], SharedWatch] = {}
        self._is_over = False

    def __len__(self) -> int:
        return len(self._open)

    async def watch(
        self, execution: str, stream: str, *, offset: int, follow: bool, credit: int = CREDIT
    ) -> AsyncIterator[LogChunk | LogEnd]:
        """The stream's bytes from *offset* on; the last item is a LogEnd, with the reason if any.

        Who follows what others follow already shares their watch: the node sends it once.
        """
        if not follow:
            pieces = self._watch(execution, stream, offset, False, credit)
        else:
            pieces = self._join(execution, stream, offset, credit)
        async with aclosing(pieces):  # type: ignore[type-var]  # An async generator.
            async for piece in pieces:
                yield piece

    async def _join(
        self, execution: str, stream: str, offset: int, credit: int
    ) -> AsyncIterator[LogChunk | LogEnd]:
        key = execution, stream
        shared = self._shared.get(key)
        if shared is None or shared.is_over:
            pieces = self._watch(execution, stream, offset, True, credit)
            shared = self._shared[key] = SharedWatch(pieces, offset)
        before = partial(self._watch, execution, stream, follow=False, credit=credit)
        try:
            read = shared.read(offset, before)
            async with aclosing(read):  # type: ignore[type-var]  # An async generator.
                async for piece in read:
                    yield piece
        finally:
            if not shared.readers and self._shared.get(key) is shared:
                del self._shared[key]

    async def _watch(
        self, execution: str, stream: str, offset: int, follow: bool, credit: int
    ) -> AsyncIterator[LogChunk | LogEnd]:
        """What the node sends, asked for by itself.

        The node sends at most *credit* bytes ahead of the reader.  Raises SessionEnded when the
        session ends first, TooManyWatches when there are MOST already.
        """
        if self._is_over:
            raise NotConnected
        if len(self._open) >= MOST:
            raise TooManyWatches
        name = str(next(self._numbers))
        reader = self._open[name] = _Reader(credit)
        watch = Watch(self._epoch, name, execution, stream, offset, credit, follow)
        try:
            await self._say(watch)
            while (item := await reader.take()) is not None:
                yield item
                if isinstance(item, LogEnd):
                    return
                if granted := reader.consumed(len(item.data)):
                    more = Watch(self._epoch, name, execution, stream, offset, granted, follow)
                    await self._say(more)
            raise SessionEnded
        finally:
            del self._open[name]
            if not reader.has_ended:
                await self._say(Unwatch(self._epoch, name))

    def feed(self, chunk: LogChunk) -> bool:
        """Pass a chunk on; False when it is more than was granted.

        What comes for a watch that has been given up meanwhile is dropped, and so is what comes
        after its end or is empty: nothing bounds how much of that there is.
        """
        reader = self._open.get(chunk.watch)
        if reader is None or reader.has_ended or not chunk.data:
            return True
        reader.credit -= len(chunk.data)
        reader.put(chunk)
        return reader.credit >= 0

    def ended(self, end: LogEnd) -> None:
        reader = self._open.get(end.watch)
        if reader is not None:
            reader.end(end)

    def close(self) -> None:
        """The session is over: every reader is told so."""
        self._is_over = True
        for reader in self._open.values():
            reader.end(None)


class _Reader:
    """What has come for one reader.

    Of a reader that is behind, small chunks that follow each other become one: a task may print
    byte by byte, and each object costs more than its byte.
    """

    def __init__(self, credit: int) -> None:
        self.credit = self._window = credit
        self.has_ended = False
        self._chunks: deque[tuple[LogChunk, bytearray]] = deque()
        self._end: LogEnd | None = None
        self._news = asyncio.Event()
        self._owed = 0

    def put(self, chunk: LogChunk) -> None:
        if len(self._chunks) >= MOST_APART:
            last, data = self._chunks[-1]
            is_next = last.offset + len(data) == chunk.offset
            if is_next and len(data) + len(chunk.data) <= LARGEST:
                data += chunk.data
                return
        self._chunks.append((chunk, bytearray(chunk.data)))
        self._news.set()

    def end(self, end: LogEnd | None) -> None:
        if not self.has_ended:
            self.has_ended, self._end = True, end
            self._news.set()

    async def take(self) -> LogChunk | LogEnd | None:
        """The next chunk, or at the end why it ended; None when the session did."""
        while not self._chunks and not self.has_ended:
            self._news.clear()
            await self._news.wait()
        if not self._chunks:
            return self._end
        chunk, data = self._chunks.popleft()
        return msgspec.structs.replace(chunk, data=bytes(data))

    def consumed(self, size: int) -> int:
        """How much to grant now, if it is enough to be worth a message."""
        self._owed += size
        if self._owed < self._window // 2:
            return 0
        granted, self._owed = self._owed, 0
        self.credit += granted
        return granted
