"""One watch for all who follow the same log of a node, each at their own pace.

The node sends as fast as the fastest of them reads.  What came lately is kept for the others; who
is further behind, or came later, reads up to there by a watch of their own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import msgspec

from .protocol.messages import LogChunk, LogEnd

KEPT = 256 * 1024
"""Bytes that are kept of what came last."""

Pieces = AsyncIterator[LogChunk | LogEnd]


class SharedWatch:
    """What *pieces* has, which begin at *offset*, for any number of readers."""

    def __init__(self, pieces: Pieces, offset: int) -> None:
        self.readers = 0
        self._pieces = pieces
        self._begin: int | None = offset if offset >= 0 else None  # Who tails learns where it is.
        self._recent: deque[LogChunk] = deque()
        self._size = 0
        self._last: LogEnd | Exception | None = None
        self._wanted, self._news = asyncio.Event(), asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._is_left = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come: its end is known, or its last reader has left."""
        return self._is_left or self._last is not None

    async def read(self, offset: int, before: Callable[[int], Pieces]) -> Pieces:
        """The bytes from *offset* on; *before* reads those that are not here any longer."""
        is_first, self.readers = self._pump is None, self.readers + 1
        if self._pump is None:
            self._pump = asyncio.create_task(self._fetch())
        at = None if is_first else offset
        try:
            while True:
                news, begin = self._news, self._begin
                if at is not None and (at < 0 or (begin is not None and at < begin)):
                    was = at
                    async for missing in _up_to_now(before(at)):
                        yield missing
                        at = missing.offset + len(missing.data)
                    if at == was:  # There is nothing of it.
                        at = begin or 0
                elif (chunk := self._next(at)) is not None:
                    yield chunk
                    at = chunk.offset + len(chunk.data)
                elif isinstance(self._last, LogEnd):
                    yield self._last
                    return
                elif self._last is not None:
                    raise self._last
                else:
                    self._wanted.set()
                    await news.wait()
        finally:
            self.readers -= 1
            if not self.readers:
                # Before anything is awaited: who comes from now on has to begin another.
                self._is_left = True
                self._pump.cancel()
                await asyncio.wait({self._pump})

    def _next(self, at: int | None) -> LogChunk | None:
        """The first that is kept of what comes after *at*, or of all."""
        for chunk in self._recent:
            if at is None or chunk.offset >= at:
                return chunk
            if chunk.offset + len(chunk.data) > at:
                return msgspec.structs.replace(
                    chunk, offset=at, data=chunk.data[at - chunk.offset :]
                )
        return None

    async def _fetch(self) -> None:
        """Fetch one piece whenever somebody has read all there is."""
        try:
            async with aclosing(self._pieces) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    if isinstance(piece, LogEnd):
                        self._last = piece
                        break
                    self._keep(piece)
                    self._wanted.clear()
                    self._tell()
                    await self._wanted.wait()
        except Exception as error:  # noqa: BLE001 - raised where it is read.
            self._last = error
        self._tell()

    def _keep(self, chunk: LogChunk) -> None:
        if self._begin is None:
            self._begin = chunk.offset
        self._recent.append(chunk)
        self._size += len(chunk.data)
        while self._size > KEPT and len(self._recent) > 1:
            self._size -= len(self._recent.popleft().data)
            self._begin = self._recent[0].offset

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


async def _up_to_now(pieces: Pieces) -> AsyncIterator[LogChunk]:
    async with aclosing(pieces):  # type: ignore[type-var]  # An async generator.
        async for piece in pieces:
            if isinstance(piece, LogChunk):
                yield piece
