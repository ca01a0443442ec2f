"""Live logs, asked of a node and fed to whoever reads them, no faster than they read."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

from .protocol.messages import FromServer, LogChunk, LogEnd, Unwatch, Watch

#: Bytes on their way to one reader, at most.
CREDIT = 256 * 1024
#: Logs of one node that are watched at once, at most.
MOST = 64


class NotConnected(Exception):
    """The node has no session with this process, so its logs cannot be followed from here."""


class SessionEnded(NotConnected):
    """The node was there, and its session ended while its logs were followed."""


class TooManyWatches(Exception):
    """The logs of this node are watched by as many readers as it serves at once."""


class Watches:
    """What is watched over one session."""

    def __init__(self, epoch: int, say: Callable[[FromServer], Awaitable[None]]) -> None:
        self._epoch, self._say = epoch, say
        self._numbers = itertools.count(1)
        self._open: dict[str, _Reader] = {}
        self._is_over = False

    def __len__(self) -> int:
        return len(self._open)

    async def watch(
        self, execution: str, stream: str, *, offset: int, follow: bool
    ) -> AsyncIterator[LogChunk | LogEnd]:
        """The stream's bytes from *offset* on; the last item is a LogEnd, with the reason if any.

        The node sends at most CREDIT bytes ahead of the reader.  Raises SessionEnded when the
        session ends first, TooManyWatches when there are MOST already.
        """
        if self._is_over:
            raise NotConnected
        if len(self._open) >= MOST:
            raise TooManyWatches
        name = str(next(self._numbers))
        reader = self._open[name] = _Reader()
        watch = Watch(self._epoch, name, execution, stream, offset, CREDIT, follow)
        try:
            await self._say(watch)
            while (item := await reader.queue.get()) is not None:
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
        reader.queue.put_nowait(chunk)
        return reader.credit >= 0

    def ended(self, end: LogEnd) -> None:
        reader = self._open.get(end.watch)
        if reader is not None and not reader.has_ended:
            reader.has_ended = True
            reader.queue.put_nowait(end)

    def close(self) -> None:
        """The session is over: every reader is told so."""
        self._is_over = True
        for reader in self._open.values():
            reader.has_ended = True
            reader.queue.put_nowait(None)


class _Reader:
    def __init__(self) -> None:
        self.queue: asyncio.Queue[LogChunk | LogEnd | None] = asyncio.Queue()
        self.credit = CREDIT
        self.has_ended = False
        self._owed = 0

    def consumed(self, size: int) -> int:
        """How much to grant now, if it is enough to be worth a message."""
        self._owed += size
        if self._owed < CREDIT // 2:
            return 0
        granted, self._owed = self._owed, 0
        self.credit += granted
        return granted
