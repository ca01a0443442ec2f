"""What of a request is waited for, and kept: its head for seconds, of its body so much.

And how many connections one address may have, from the first byte on: those of proxies of ours and
those of nodes that have been greeted are not counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

from daphne.http_protocol import HTTPFactory, WebRequest
from django.conf import settings
from twisted.web import http

from nodes.token_bucket import TokenBucket
from orchestrator.access.limits import Slot, Slots
from orchestrator.access.sign_in import source
from orchestrator.server.front_door import is_of

logger = logging.getLogger(__name__)

HEAD_WITHIN = 10.0
"""Seconds in which the head of a request comes whole, from its first byte or the connection on."""

BODY_WITHIN = 30.0
"""Seconds in which its body does."""

LARGEST = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
"""Bytes that are kept of a body; nothing that is asked of us is larger."""

MOST_DROPPED = 16 * 1024 * 1024
"""Bytes that are read and dropped of one that is larger, so that its sender hears of it."""

_TOO_LARGE = (
    b'{"type":"https://muster.invalid/problems/too-large","title":"Request Entity Too Large",'
    b'"status":413,"detail":"The request is larger than any request may be.",'
    b'"code":"too-large","hint":"Send less at once."}'
)


twisted: Any = http  # It says other types than it has.


class Channel(twisted.HTTPChannel):  # type: ignore[misc]
    """One connection that brings requests, each in time."""

    _deadline: Any = None
    #: Seconds that a connection may stay open without a request.
    timeOut = 15  # noqa: N815 - Twisted's name

    #: What counts it, if anything does.
    slot: Slot | None = None

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        self.transport.slot = self.slot  # A websocket has no more of this connection than that.
        super().connectionMade()
        self._expect(self.factory.server.head_within, b"408 Request Timeout")

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        if self._deadline is None and not self._handlingRequest:
            self._expect(self.factory.server.head_within, b"408 Request Timeout")
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:  # noqa: N802 - Twisted's name
        self._expect(self.factory.server.body_within, b"408 Request Timeout")
        super().allHeadersReceived()

    def allContentReceived(self) -> None:  # noqa: N802 - Twisted's name
        self._expect(None)
        super().allContentReceived()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802 - Twisted's name
        self._expect(None)
        super().connectionLost(reason)
        release(self.slot)

    def _maybeChooseTransferDecoder(self, header: bytes, data: bytes) -> bool:  # noqa: N802
        """Refuse what is not exactly `chunked`: others might read another body out of it."""
        if header == b"Transfer-Encoding" and data.lower() != b"chunked":
            return bool(self._failChooseTransferDecoder())
        return bool(super()._maybeChooseTransferDecoder(header, data))

    def refuse(self, status: bytes, kind: bytes = b"text/plain", body: bytes = b"") -> None:
        """Answer before the request is whole; what still comes of it is not looked at."""
        head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        self.transport.write(head % (status, kind, len(body)) + body)

    def _expect(self, seconds: float | None, or_else: bytes = b"") -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None:
            self._deadline = self.callLater(seconds, partial(self._too_late, or_else))

    def _too_late(self, status: bytes) -> None:
        if not (self.requests and getattr(self.requests[-1], "is_refused", False)):
            self.refuse(status)
        self.timeoutConnection()


class Request(WebRequest):  # type: ignore[misc] # Daphne has no types
    """A request of which no more is kept than any may have."""

    is_refused = False
    _size = 0

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - Twisted's name
        """Keep the body in memory: it is small."""
        self.content = BytesIO()
        if length is not None and length > LARGEST:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        self._size += len(data)
        if not self.is_refused and self._size > LARGEST:
            self._refuse()
        if not self.is_refused:
            self.content.write(data)
        elif self._size > MOST_DROPPED:
            self.channel.loseConnection()

    def process(self) -> Any:
        """Hand it on."""
        if self.is_refused:
            self.channel.loseConnection()
            return None
        return super().process()

    def _refuse(self) -> None:
        self.is_refused = True
        self.content = BytesIO()
        self.channel.refuse(
            b"413 Request Entity Too Large", b"application/problem+json", _TOO_LARGE
        )


def counted(websocket: Any) -> Any:
    """*websocket*, a class, that counts as the connection it began as, until it is lost."""

    class Counted(websocket):  # type: ignore[misc] # Daphne has no types
        def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
            self.slot: Slot | None = self.transport.slot
            super().connectionMade()

        def connectionLost(self, reason: Any) -> None:  # noqa: N802 - Twisted's name
            super().connectionLost(reason)
            release(self.slot)

    return Counted


def release(slot: Slot | None) -> None:
    if slot is not None:
        slot.release()


class Factory(HTTPFactory):  # type: ignore[misc] # Daphne has no types
    """Makes connections, of one address so many at once; with *most* 0 any number."""

    def __init__(
        self,
        server: Any,
        most: int = settings.CONNECTIONS_PER_ADDRESS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(server)
        self._most, self._clock = most, clock
        self._slots = Slots()
        self._log = TokenBucket(burst=10, rate=0.1)

    def protocol(self) -> Any:
        return twisted._GenericHTTPChannelProtocol(Channel())

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802 - Twisted's name
        """A connection; None for one too many, which is closed."""
        address, slot = getattr(addr, "host", ""), None
        if self._most and address and not is_of(address, settings.TRUSTED_PROXIES):
            slot = self._slots.take(source(address), self._most)
            if slot is None:
                if self._log.takes(self._clock()):
                    said = "%s has %d connections open, and gets no more for now"
                    logger.warning(said, source(address), self._most)
                return None
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = Request
        protocol._channel.slot = slot
        return protocol
