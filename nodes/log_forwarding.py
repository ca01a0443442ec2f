"""Logs of nodes whose session another web process holds: asked of that one, over HTTP.

Both ends of it. The request is signed with the secret that all web processes share, names what is
read, and is good for a minute; the answer is frames, each

    kind (1 byte), offset (8 bytes), size (4 bytes), data

with a sign of life every few seconds, and as the last one why there are no more.  An answer that
ends without a last one broke off.
"""

from __future__ import annotations

import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any
from uuid import UUID

import httpx
import structlog
from django.core import signing
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET

from . import sessions
from .log_watch import (
    CREDIT,
    HEARTBEAT,
    NotConnected,
    SessionEnded,
    TooManyWatches,
    with_heartbeats,
)
from .protocol.messages import LogChunk, LogEnd

log = structlog.get_logger(__name__)

PATH = "internal/logs/"
SCHEME = "Muster-Signed"
#: How long a request may be under way, in seconds; clocks may differ by as much.
VALID_FOR = 60
#: How long the other process may say nothing, in seconds, until it is taken for gone.
SILENT_AFTER, CONNECT_WITHIN = 3 * HEARTBEAT, 3.0

_SALT = "muster.internal.logs"
_HEADER = struct.Struct(">BQI")
#: Addresses of web processes begin with http: nothing is verified, so nothing need be loaded.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Kind(IntEnum):
    """What a frame says."""

    CHUNK = 0
    ALIVE = 1
    END = 2
    NOT_HERE = 3
    SESSION_ENDED = 4
    TOO_MANY = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is read of a log; it is what is signed."""

    execution: str
    node: str
    stream: str
    offset: int
    follow: bool
    credit: int


def address_of(scope: dict[str, Any]) -> str:
    """Where the connection of *scope* reached this process; empty where that is no address."""
    host, port = scope.get("server") or ("", None)
    if port is None:
        return ""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def watch(
    execution: str,
    node: UUID,
    stream: str,
    offset: int = 0,
    *,
    epoch: int = 0,
    address: str = "",
    follow: bool = True,
    credit: int = CREDIT,
) -> AsyncIterator[LogChunk | LogEnd]:
    """The bytes of a log from whichever web process has the node's session; see ``Watches.watch``.

    *epoch* and *address* are those of the session by its row, if it is anywhere.  Raises
    NotConnected when the node is not connected, or its process cannot be asked, and says which.
    """
    here = sessions.installed()
    if here is not None and here.holds(node, epoch):
        pieces = here.watch(execution, node, stream, offset, follow=follow, credit=credit)
    elif address:
        wanted = Wanted(
            execution=execution,
            node=str(node),
            stream=stream,
            offset=offset,
            follow=follow,
            credit=credit,
        )
        pieces = _watch_elsewhere(wanted, address)
    else:
        raise NotConnected
    async with aclosing(pieces):  # type: ignore[type-var]  # An async generator.
        async for piece in pieces:
            yield piece


# --- the end that asks -----------------------------------------------------------------------


async def _watch_elsewhere(wanted: Wanted, address: str) -> AsyncIterator[LogChunk | LogEnd]:
    headers = {
        "Authorization": f"{SCHEME} {signing.dumps(asdict(wanted), salt=_SALT)}",
        "Host": "localhost",  # It answers to that, whatever its address.
        "Accept-Encoding": "identity",
    }
    timeout = httpx.Timeout(SILENT_AFTER, connect=CONNECT_WITHIN)
    has_begun = False
    try:
        async with (
            httpx.AsyncClient(verify=_NO_TLS, trust_env=False, timeout=timeout) as client,
            client.stream("GET", f"{address}/{PATH}", headers=headers) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise NotConnected(_refused(address, f"HTTP {answer.status_code}"))
            async for kind, at, data in _decoded(answer.aiter_raw()):
                has_begun = True  # Also where the task says nothing.
                match kind:
                    case Kind.ALIVE:
                        pass
                    case Kind.CHUNK:
                        yield LogChunk(0, "", at, data)
                    case Kind.END:
                        yield LogEnd(0, "", data.decode())
                        return
                    case Kind.NOT_HERE:
                        raise NotConnected
                    case Kind.SESSION_ENDED:
                        raise SessionEnded
                    case Kind.TOO_MANY:
                        raise TooManyWatches
                    case _:
                        raise NotConnected(_refused(address, "what is no log"))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        log.info("a log cannot be read elsewhere", address=address, error=repr(error))
    if has_begun:
        raise SessionEnded(f"the web process at {address}, which holds its session, broke off")
    raise NotConnected(f"the web process at {address}, which holds its session, does not answer")


def _refused(address: str, answer: str) -> str:
    log.error("a web process refuses to pass a log on", address=address, answer=answer)
    who = f"the web process at {address}, which holds its session,"
    if answer == "HTTP 403":
        cure = "give all web processes one MUSTER_SECRET_KEY, and set their clocks"
        return f"{who} refuses to pass its log on (403): {cure}"
    cure = "MUSTER_INTERNAL_URL of that process must be where the others reach it"
    return f"{who} answers {answer}: {cure}, and all be of one version"


async def _decoded(pieces: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, int, bytes]]:
    """The frames in *pieces*, wherever those are cut."""
    rest = bytearray()
    async for piece in pieces:
        rest += piece
        while len(rest) >= _HEADER.size:
            kind, at, size = _HEADER.unpack_from(rest)
            end = _HEADER.size + size
            if kind > max(Kind):  # Who knows what it would be the size of.
                yield kind, at, b""
            if len(rest) < end:
                break
            data = bytes(rest[_HEADER.size : end])
            del rest[:end]
            yield kind, at, data


# --- the end that answers --------------------------------------------------------------------


@csrf_exempt
@require_GET
def serve(request: HttpRequest) -> HttpResponseBase:
    """Pass the log of a node on that has its session here; only to who shares our secret."""
    scheme, _, signed = request.headers.get("Authorization", "").partition(" ")
    try:
        if scheme != SCHEME:
            raise signing.BadSignature
        said = signing.loads(signed, salt=_SALT, max_age=VALID_FOR)
    except signing.BadSignature:
        text = "Only web processes of this cluster ask here: the request is not signed, or too old."
        return HttpResponse(f"{text}\n", status=403, content_type="text/plain; charset=utf-8")
    return StreamingHttpResponse(
        frames(Wanted(**said)),
        content_type="application/octet-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def frames(wanted: Wanted, *, heartbeat: float = HEARTBEAT) -> AsyncIterator[bytes]:
    """What this process can read of *wanted*, as frames; the last one says why it is the last."""
    try:
        pieces = sessions.current().watch(
            wanted.execution,
            UUID(wanted.node),
            wanted.stream,
            wanted.offset,
            follow=wanted.follow,
            credit=wanted.credit,
        )
        async with aclosing(with_heartbeats(pieces, heartbeat)) as coming:  # type: ignore[type-var]
            async for piece in coming:
                match piece:
                    case None:
                        yield _frame(Kind.ALIVE)
                    case LogChunk():
                        yield _frame(Kind.CHUNK, piece.data, piece.offset)
                    case LogEnd():
                        yield _frame(Kind.END, piece.reason.encode())
    except TooManyWatches:
        yield _frame(Kind.TOO_MANY)
    except SessionEnded:
        yield _frame(Kind.SESSION_ENDED)
    except NotConnected:
        yield _frame(Kind.NOT_HERE)


def _frame(kind: Kind, data: bytes = b"", at: int = 0) -> bytes:
    return _HEADER.pack(kind, at, len(data)) + data
