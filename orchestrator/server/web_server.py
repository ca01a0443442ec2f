"""Daphne with flow control: it tells applications what has not left this process yet.

Daphne's own `send` returns at once, and what the client does not take piles up here. This one puts
an `Outgoing` into the scope, for `backpressure` to wait for, and lets go of who takes nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import struct
import termios
import threading
import time
from typing import Any

from daphne.cli import CommandLineInterface
from daphne.server import Server
from daphne.ws_protocol import WebSocketProtocol
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from orchestrator.server import http_limits
from orchestrator.server.backpressure import EXTENSION, Application

logger = logging.getLogger(__name__)

STALLED_AFTER = 300.0
"""Seconds after which a client is let go that takes nothing of what it asked for."""

SHUTDOWN_TIMEOUT = 5.0
"""Seconds that requests have to end when the process is told to."""

MOST_OF_A_NODE = 64 * 1024 * 1024
"""Bytes that wait for one websocket, at most: a node is told all its orders at once."""


class WebServer(Server):  # type: ignore[misc] # Daphne has no types
    """Daphne's server, which knows what is on its way to each client."""

    stalled_after = STALLED_AFTER
    head_within, body_within = http_limits.HEAD_WITHIN, http_limits.BODY_WITHIN

    def __init__(self, application: Application, *arguments: Any, **options: Any) -> None:
        super().__init__(self._ending_streams(application), *arguments, **options)
        self._full: set[Outgoing] = set()

    @property
    def http_factory(self) -> http_limits.Factory:
        """What makes connections; Daphne would have one without limits."""
        return self._http_factory

    @http_factory.setter
    def http_factory(self, _of_daphne: Any) -> None:
        self._http_factory = http_limits.Factory(self)

    @property
    def ws_factory(self) -> Any:
        """What makes websockets of connections."""
        return self._ws_factory

    @ws_factory.setter
    def ws_factory(self, of_daphne: Any) -> None:
        of_daphne.protocol = http_limits.counted(of_daphne.protocol)
        self._ws_factory = of_daphne

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        protocol.outgoing = Outgoing(protocol, self._full)
        scope["extensions"] = {EXTENSION: protocol.outgoing}
        scope["root_path"] = self.root_path  # Daphne believes a header of whoever asks.
        return super().create_application(protocol, scope)

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        if protocol in self.connections and "disconnected" not in self.connections[protocol]:
            protocol.outgoing.about_to_send(message)
        await super().handle_reply(protocol, message)

    def kill_all_applications(self) -> Any:
        """Cancel what goes on.  Whatever does not end by that ends with the process, soon.

        Daphne would wait for it, and Python for threads that wait for the ended event loop.
        """
        timer = threading.Timer(SHUTDOWN_TIMEOUT, os._exit, (0,))
        timer.daemon = True
        timer.start()
        return super().kill_all_applications()

    def timeout_checker(self) -> None:
        now = time.monotonic()
        for outgoing in list(self._full):
            if outgoing.is_stalled(now, self.stalled_after):
                outgoing.abandon("takes nothing of what it asked for")
        super().timeout_checker()

    def _ending_streams(self, application: Application) -> Application:
        """Break the connection off where a stream fails: its reader must not take it for whole.

        Daphne would begin a second answer there, which fails, and ends its look after all others.
        """

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            try:
                await application(scope, receive, send)
            except Exception:
                outgoing = scope["extensions"][EXTENSION]
                if not outgoing.is_stream:
                    raise
                logger.exception("the answer to %s broke off", scope["path"])
                await outgoing.break_off()

        return serve


class WebCommandLine(CommandLineInterface):  # type: ignore[misc] # Daphne has no types
    server_class = WebServer


@implementer(IPushProducer)
class Outgoing:
    """What is on its way to one client and has not left this process."""

    def __init__(self, protocol: Any, full: set[Outgoing]) -> None:
        self.most = MOST_OF_A_NODE
        self.is_stream = False
        self._protocol, self._full = protocol, full
        self._transport = protocol.transport
        self._is_websocket = isinstance(protocol, WebSocketProtocol)
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._unsent = 0
        self._queued: int | None = None
        self._moved_at = 0.0
        if self._is_websocket:
            # Of the HTTP request that it began as, which is over.
            self._transport.unregisterProducer()
            self._transport.registerProducer(self, True)

    async def room(self) -> None:
        """Wait until the client has taken what it was sent, or is gone."""
        await self._has_room.wait()

    def about_to_send(self, message: dict[str, Any]) -> None:
        """Watch over a stream from its first piece to its last, and all that a socket is sent."""
        match message["type"]:
            case "http.response.body" if message.get("more_body"):
                if not self.is_stream:
                    self._begin()
            case "http.response.body" if self.is_stream:
                self._end()
            case "websocket.send" if not self._has_room.is_set():
                self._unsent += len(message.get("bytes") or message.get("text") or "")
                if self._unsent > self.most:
                    self.abandon("reads too slowly")

    def count_no_longer(self) -> None:
        """It is of somebody who may have as many connections as they like."""
        http_limits.release(self._transport.slot)

    def is_stalled(self, now: float, patience: float) -> bool:
        """Whether nothing has left for the client for so long."""
        queued = _queued_by_the_kernel(self._transport)
        if queued != self._queued:
            self._queued, self._moved_at = queued, now
        return now - self._moved_at > patience

    def abandon(self, why: str) -> None:
        """Let the client go."""
        logger.warning("a client of %s %s and is let go", self._protocol.path.decode(), why)
        self._transport.abortConnection()

    async def break_off(self) -> None:
        """Close the connection after what was sent, without the end of the answer."""
        await self.room()
        if self._protocol.channel is not None:
            self._protocol.channel.loseConnection()

    def _begin(self) -> None:
        """Take part in the transport's flow control; each piece has left before the next comes."""
        self.is_stream = True
        self._buffer_size = self._transport.bufferSize
        self._transport.bufferSize = 0
        self._protocol.registerProducer(self, True)

    def _end(self) -> None:
        self.is_stream = False
        self._transport.bufferSize = self._buffer_size
        self._protocol.unregisterProducer()
        self._open()

    def _open(self) -> None:
        self._has_room.set()
        self._unsent = 0
        self._full.discard(self)

    # --- called by the transport ---------------------------------------------------------------

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        if self._has_room.is_set():
            self._has_room.clear()
            self._queued, self._moved_at = None, time.monotonic()
            self._full.add(self)

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        self._open()
        if self._is_websocket and self._transport.disconnecting:
            self._transport.unregisterProducer()  # It closes only then.

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        self._open()


def _queued_by_the_kernel(transport: Any) -> int:
    """Bytes that the kernel holds for the client; 0 where it does not say."""
    try:
        said = fcntl.ioctl(transport.getHandle(), termios.TIOCOUTQ, struct.pack("i", 0))
    except (OSError, AttributeError):
        return 0
    return int(struct.unpack("i", said)[0])
