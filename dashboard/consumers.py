"""The socket of an open page: it tells that something has changed, and brings logs."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from orchestrator import access
from orchestrator.access import limits, sessions
from orchestrator.models import Execution

from . import live, log_streaming

HEARTBEAT = 15.0
"""Seconds between two signs of life; a page that hears none for 35 s calls the socket dead."""

RECHECK = 30.0
"""Seconds after which a socket's user is asked for again."""

SIGNED_OUT = 4401
MALFORMED = 4400
FORBIDDEN = 4403
TOO_MANY = 4429
CHANGED = 1012


class LiveConsumer(AsyncWebsocketConsumer):  # type: ignore[misc] # Channels has no types
    """Sends ``hello``, ``changed``, ``ping``, each with the cursor; and logs: `log_streaming`.

    Only for people who are signed in; closed with 4401 when their account is deactivated or
    their session ends, with 4403 when they have no role, with 4429 when they
    have too many open, with 1012 when their roles have changed,
    with 4400 when a page says what none of ours says.
    """

    heartbeat = HEARTBEAT
    recheck = RECHECK
    feed = live.feed
    _chores: asyncio.Task[None] | None = None
    _news: asyncio.Event
    _log_streams: log_streaming.LogStreams | None = None
    _slot: limits.Slot | None = None

    async def connect(self) -> None:
        await self.accept()  # A refused handshake would not tell the page why.
        user = self.scope.get("user")
        if user is None or not user.is_active or not user.is_authenticated:
            await self.close(SIGNED_OUT)
            return
        self._news = asyncio.Event()
        self._rights = await database_sync_to_async(access.rights_of)(user)
        if not self._rights.is_anybody:
            await self.close(FORBIDDEN)
            return
        self._slot = limits.sockets.take(user.pk, settings.SOCKETS_PER_USER)
        if self._slot is None:
            await self.close(TOO_MANY)
            return
        self._log_streams = log_streaming.LogStreams(
            self._send_piece, self._send_text, database_sync_to_async(self._sees), user.pk
        )
        self.feed.join(self._hear)
        await self._say("hello")
        self._chores = asyncio.create_task(self._keep())

    async def disconnect(self, code: int) -> None:
        self.feed.leave(self._hear)
        if self._slot is not None:
            self._slot.release()
        if self._chores is not None:
            self._chores.cancel()
        if self._log_streams is not None:
            await self._log_streams.close()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Follow a log, or no longer; a socket that was sent away is not listened to."""
        if self._log_streams is None:
            return
        try:
            await self._log_streams.hear(text_data or "")
        except log_streaming.Malformed:
            await self._leave(MALFORMED)

    def _sees(self, execution: UUID) -> bool:
        return access.visible(self._rights, Execution.objects.filter(pk=execution)).exists()

    def _hear(self) -> None:
        self._news.set()

    async def _keep(self) -> None:
        """Tell of news, show signs of life, and ask now and then whether this may go on."""
        loop = asyncio.get_running_loop()
        ask_at = loop.time() + self.recheck
        beat_at = loop.time() + self.heartbeat
        while True:
            try:
                async with asyncio.timeout_at(min(ask_at, beat_at)):
                    await self._news.wait()
                self._news.clear()
                await self._say("changed")
            except TimeoutError:
                if loop.time() >= ask_at:
                    key = self.scope["session"].session_key
                    rights = await database_sync_to_async(sessions.rights_of)(key)
                    if rights is None:
                        await self._leave(SIGNED_OUT)
                        return
                    if rights != self._rights:  # The page comes again, and sees what it may now.
                        await self._leave(CHANGED)
                        return
                    ask_at = loop.time() + self.recheck
                if loop.time() >= beat_at:
                    await self._say("ping")
                    beat_at = loop.time() + self.heartbeat

    async def _leave(self, code: int) -> None:
        """Close the socket, and send no more of what is followed."""
        following, self._log_streams = self._log_streams, None
        if following is not None:
            await following.close()
        await self.close(code)

    async def _say(self, kind: str) -> None:
        await self._send_text({"type": kind, "cursor": str(self.feed.cursor)})

    async def _send_text(self, message: dict[str, object]) -> None:
        await self.send(json.dumps(message))

    async def _send_piece(self, frame: bytes) -> None:
        await self.send(bytes_data=frame)
