"""What of a request is waited for, and kept: its head for seconds, of its body so much."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from typing import Any

from daphne.http_protocol import HTTPFactory, WebRequest
from django.conf import settings
from twisted.web import http

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

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
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


class Factory(HTTPFactory):  # type: ignore[misc] # Daphne has no types
    def protocol(self) -> Any:
        return twisted._GenericHTTPChannelProtocol(Channel())

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802 - Twisted's name
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = Request
        return protocol
