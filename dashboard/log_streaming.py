"""Logs that a page follows over its socket, no faster than the page takes them.

A page says ``follow``, ``taken`` and ``unfollow``; each follow has an id that the page chose.  It
is answered with binary frames, pieces of the log, and with one ``end`` in text:

    id (4 bytes), kind (1 byte: 0 of the log, 1 a note of ours), place after it (8 bytes), data

A page that takes nothing costs CREDIT bytes a follow, and no more is read of the node for it.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from django.conf import settings

from orchestrator.access import limits
from orchestrator.endpoint import logs
from orchestrator.models import Execution

log = logging.getLogger(__name__)

CREDIT = 256 * 1024
"""Bytes on their way to the page of one follow, at most; one piece may be larger than that."""

MOST = 4
"""Follows of one socket at once: a page shows one log, and fetches its beginning meanwhile."""

LARGEST = 1024
"""Characters of a message from a page, at most."""

HEADER = struct.Struct(">IBq")

_Place = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Id = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class Malformed(Exception):
    """A page never says this."""


class Follow(msgspec.Struct, frozen=True, kw_only=True, tag="follow", forbid_unknown_fields=True):
    """Send the log from *offset* on, or the last *tail* bytes and what follows.

    With *until* it ends there, and at the latest at the end of what is printed by now.
    """

    id: _Id
    execution: UUID
    stream: Literal["stdout", "stderr"]
    offset: _Place | None = None
    tail: Annotated[int, msgspec.Meta(ge=0, le=2**24)] | None = None
    until: _Place | None = None


class Unfollow(msgspec.Struct, frozen=True, tag="unfollow", forbid_unknown_fields=True):
    id: _Id


class Taken(msgspec.Struct, frozen=True, tag="taken", forbid_unknown_fields=True):
    """So many bytes more have been shown: as many may come."""

    id: _Id
    bytes: _Place


_decoder = msgspec.json.Decoder(Follow | Unfollow | Taken)


class LogStreams:
    """What one socket follows; what its viewer does not see is not there."""

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[None]],
        say: Callable[[dict[str, object]], Awaitable[None]],
        sees: Callable[[UUID], Awaitable[bool]],
        user: int | None = None,
    ) -> None:
        self._send, self._say, self._sees, self._user = send, say, sees, user
        self._open: dict[int, tuple[_Credit, asyncio.Task[None]]] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def hear(self, message: str) -> None:
        """Do what the page says; raises Malformed."""
        if len(message) > LARGEST:
            raise Malformed
        try:
            said = _decoder.decode(message)
        except msgspec.DecodeError as error:
            raise Malformed from error
        match said:
            case Follow():
                await self._begin(said)
            case Unfollow():
                await self._give_up(said.id)
            case Taken() if said.id in self._open:
                self._open[said.id][0].grant(said.bytes)

    async def close(self) -> None:
        for it in list(self._open):
            await self._give_up(it)

    async def _begin(self, ask: Follow) -> None:
        if ask.id in self._open or (ask.offset is None) == (ask.tail is None):
            raise Malformed
        if ask.until is not None and (ask.offset is None or ask.until < ask.offset):
            raise Malformed
        if len(self._open) >= MOST:
            await self._end(ask, f"no more than {MOST} logs a page", again=True)
            return
        slot = limits.streams.take(self._user, settings.STREAMS_PER_USER)
        if slot is None:
            most = settings.STREAMS_PER_USER
            await self._end(ask, f"no more than {most} logs are followed at once", again=True)
            return
        credit = _Credit()
        task = asyncio.create_task(self._follow(ask, credit))
        task.add_done_callback(lambda _: slot.release())
        self._open[ask.id] = credit, task

    async def _give_up(self, name: int) -> None:
        if (it := self._open.pop(name, None)) is not None:
            _, task = it
            task.cancel()
            await asyncio.wait({task})

    async def _follow(self, ask: Follow, credit: _Credit) -> None:
        try:
            for_now = await self._pass_on(ask, credit)
        except Execution.DoesNotExist:
            await self._end(ask, "this execution is no longer there")
        except Exception:
            log.exception("the log of execution %s cannot be followed", ask.execution)
            await self._end(ask, "the stream broke off, trying again", again=True)
        else:
            await self._end(ask, for_now, again=bool(for_now))
        finally:
            self._open.pop(ask.id, None)

    async def _pass_on(self, ask: Follow, credit: _Credit) -> str:
        """Send what there is; why there is no more for now, or nothing where that is the end."""
        if not await self._sees(ask.execution):
            raise Execution.DoesNotExist
        reading = logs.Reading(stream=ask.stream, tail=ask.tail, follow=ask.until is None)
        pieces, lines = logs.of_execution(ask.execution, reading, ask.offset), logs.Lines()
        async with aclosing(pieces):  # type: ignore[type-var]  # An async generator.
            async for piece in pieces:
                if piece.for_now and ask.until is None:
                    return piece.for_now
                data, after = piece.data, piece.after
                if ask.until is not None and after > ask.until and not piece.is_note:
                    data, after = data[: ask.until - after], ask.until
                if piece.is_note:
                    lines = logs.Lines()
                else:
                    data = lines.cut(data)
                await credit.spend(len(data))
                await self._send(HEADER.pack(ask.id, piece.is_note, after) + data)
                if ask.until is not None and after >= ask.until:
                    break
        return ""

    async def _end(self, ask: Follow, why: str = "", *, again: bool = False) -> None:
        await self._say({"type": "end", "id": ask.id, "why": why, "again": again})


class _Credit:
    """Bytes that are on their way to a page."""

    def __init__(self) -> None:
        self._on_their_way = 0
        self._taken = asyncio.Event()

    def grant(self, size: int) -> None:
        self._on_their_way = max(0, self._on_their_way - size)
        self._taken.set()

    async def spend(self, size: int) -> None:
        """Wait until *size* bytes fit, or nothing else is on its way."""
        while self._on_their_way and self._on_their_way + size > CREDIT:
            self._taken.clear()
            await self._taken.wait()
        self._on_their_way += size
