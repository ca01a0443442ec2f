"""Logs over HTTP; what is read, and from where, is in `orchestrator.endpoint.logs`.

As plain text, or for programs that read on where a connection broke as lines of JSON: each tells
where in the log it ends, one without anything says that the server is there, and the last one that
there is no more.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

import msgspec
from django.conf import settings
from django.http import HttpRequest, StreamingHttpResponse
from msgspec import Meta
from ninja import Router

from nodes.log_watch import HEARTBEAT, with_heartbeats
from orchestrator import access
from orchestrator.access import limits
from orchestrator.endpoint.logs import (
    MOST_NAMED,
    Piece,
    Reading,
    Stream,
    ask,
    cut_lines,
    of_execution,
    of_job,
)
from orchestrator.explain.errors import TooManyStreams
from orchestrator.spec.mistakes import mistake, shown

from . import references
from .authentication import READ, caller
from .operations import operation
from .parsing import refuse_both
from .problems import invalid_parameters
from .schemas import NamespaceName, Parameters

RECORDS = "application/x-ndjson"

LOOK_AGAIN_EVERY = 30.0
"""Seconds after which it is asked again whether somebody may read what they follow."""

RETRY_AFTER = 5
"""Seconds until somebody who follows too many logs may have ended one."""

NO_LONGER = b"\n[muster: you may no longer read this]\n"
NOBODY = UUID(int=0)

_TEXT = {200: ("text/plain", RECORDS)}

_AFTER = r"^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:[0-9]{1,15}(,|$))*$"

router = Router(tags=["logs"])


class Asked(Parameters):
    stream: Annotated[Stream, Meta(description="which of the two")] = "stdout"
    tail: Annotated[int, Meta(ge=0, le=2**40, description="only so many last bytes")] | None = None
    follow: Annotated[bool, Meta(description="go on until the end of what is printed")] = False

    def reading(self) -> Reading:
        return Reading(stream=self.stream, tail=self.tail, follow=self.follow)


class AskedOfOne(Asked):
    offset: Annotated[int, Meta(ge=0, le=2**53, description="the first byte")] = 0


class AskedOfMany(Asked):
    namespace: NamespaceName = ""
    after: Annotated[
        str,
        Meta(
            extra_json_schema={"pattern": _AFTER},
            max_length=64 * MOST_NAMED,
            description="where to go on, as `execution:offset` separated by commas",
        ),
    ] = ""


@router.get("/executions/{ref}/logs", auth=READ)
@operation(_TEXT)
def read_execution(request: HttpRequest, ref: str, query: AskedOfOne) -> StreamingHttpResponse:
    """What one execution has printed; missing bytes are named in a line that begins [muster."""
    if query.tail is not None:
        refuse_both(request, "tail", "offset")
    row = references.execution(request, ref)
    offset = query.offset if query.tail is None else None
    pieces = cut_lines(of_execution(row.pk, query.reading(), offset))
    return _answer(request, row.job.namespace_id, pieces)


@router.get("/jobs/{ref}/logs", auth=READ)
@operation(_TEXT)
def read_job(request: HttpRequest, ref: str, query: AskedOfMany) -> StreamingHttpResponse:
    """What a job's executions of this round print, each line after the number of its slot."""
    row = references.job(request, ref)
    if not re.fullmatch(_AFTER, query.after):
        message = f"{shown(query.after)} is no list of places to go on"
        hint = "Write `execution:offset`, whole ids and whole numbers, separated by commas."
        raise invalid_parameters([mistake("after", message, hint)])
    after = dict(it.split(":") for it in query.after.split(",") if it)
    begins = {UUID(execution): int(offset) for execution, offset in after.items()}
    return _answer(request, row.namespace_id, of_job(row.pk, query.reading(), begins))


def _answer(
    request: HttpRequest, namespace: str | None, pieces: AsyncIterator[Piece]
) -> StreamingHttpResponse:
    who, most = caller(request), settings.STREAMS_PER_USER
    slot = limits.streams.take(who.user.pk, most)
    if slot is None:
        name = who.user.get_username()
        raise TooManyStreams(name=name, most=most, retry_after=RETRY_AFTER)

    def may_go_on() -> bool:
        rights = who.again()
        return rights is not None and access.may(rights, "see", namespace)

    allowed = while_allowed(pieces, may_go_on, slot)
    records = RECORDS in request.headers.get("Accept", "")
    answer = StreamingHttpResponse(
        as_records(allowed) if records else _text(allowed),
        content_type=RECORDS if records else "text/plain; charset=utf-8",
        headers={
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            "Vary": "Accept",
        },
    )
    weakref.finalize(answer, slot.release)  # Also of an answer that nobody came to read.
    return answer


async def while_allowed(
    pieces: AsyncIterator[Piece],
    may_go_on: Callable[[], bool],
    slot: limits.Slot,
    *,
    every: float = LOOK_AGAIN_EVERY,
) -> AsyncIterator[Piece]:
    """What *pieces* has, as long as it may be read.

    The last piece says so where it may be read no longer: then it is not the end of the log.
    """
    clock = asyncio.get_running_loop().time
    look_at = clock() + every
    try:
        async with aclosing(with_heartbeats(pieces, every)) as coming:  # type: ignore[type-var]
            async for piece in coming:
                if clock() >= look_at:
                    if not await ask(may_go_on):
                        yield Piece(NOBODY, NO_LONGER, -1, is_note=True, for_now="not allowed")
                        return
                    look_at = clock() + every
                if piece is not None:
                    yield piece
    finally:
        slot.release()


async def _text(pieces: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
    async with aclosing(pieces):  # type: ignore[type-var]  # An async generator.
        async for piece in pieces:
            if piece.data:
                yield piece.data


async def as_records(
    pieces: AsyncIterator[Piece], *, heartbeat: float = HEARTBEAT
) -> AsyncIterator[bytes]:
    """A line of JSON a piece, an empty object when there was none for a while, and an end."""
    is_end = True
    async with aclosing(with_heartbeats(pieces, heartbeat)) as coming:  # type: ignore[type-var]
        async for piece in coming:
            is_end = piece is None or piece.data is not NO_LONGER
            yield b"{}\n" if piece is None else _record(piece)
    if is_end:
        yield b'{"end":true}\n'


def _record(piece: Piece) -> bytes:
    told = {
        "execution": str(piece.execution),
        "after": piece.after,
        "data": b64encode(piece.data).decode(),
        **({"note": True} if piece.is_note else {}),
    }
    return msgspec.json.encode(told) + b"\n"
