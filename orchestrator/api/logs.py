"""Logs over HTTP; what is read, and from where, is in `orchestrator.endpoint.logs`.

As plain text, or for programs that read on where a connection broke as lines of JSON: each tells
where in the log it ends, one without anything says that the server is there, and the last one that
there is no more.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

import msgspec
from django.http import HttpRequest, StreamingHttpResponse
from msgspec import Meta
from ninja import Router

from nodes.log_watch import HEARTBEAT, with_heartbeats
from orchestrator.endpoint.logs import MOST_NAMED, Piece, Reading, Stream, of_execution, of_job
from orchestrator.spec.mistakes import mistake, shown

from . import references
from .authentication import READ
from .operations import operation
from .parsing import refuse_both
from .problems import invalid_parameters
from .schemas import Parameters

RECORDS = "application/x-ndjson"

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
    row = references.execution(ref)
    offset = query.offset if query.tail is None else None
    return _answer(request, of_execution(row.pk, query.reading(), offset))


@router.get("/jobs/{ref}/logs", auth=READ)
@operation(_TEXT)
def read_job(request: HttpRequest, ref: str, query: AskedOfMany) -> StreamingHttpResponse:
    """What a job's executions of this round print, each line after the number of its slot."""
    row = references.job(ref)
    if not re.fullmatch(_AFTER, query.after):
        message = f"{shown(query.after)} is no list of places to go on"
        hint = "Write `execution:offset`, whole ids and whole numbers, separated by commas."
        raise invalid_parameters([mistake("after", message, hint)])
    after = dict(it.split(":") for it in query.after.split(",") if it)
    begins = {UUID(execution): int(offset) for execution, offset in after.items()}
    return _answer(request, of_job(row.pk, query.reading(), begins))


def _answer(request: HttpRequest, pieces: AsyncIterator[Piece]) -> StreamingHttpResponse:
    records = RECORDS in request.headers.get("Accept", "")
    return StreamingHttpResponse(
        as_records(pieces) if records else _text(pieces),
        content_type=RECORDS if records else "text/plain; charset=utf-8",
        headers={
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            "Vary": "Accept",
        },
    )


async def _text(pieces: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
    async with aclosing(pieces):  # type: ignore[type-var]  # An async generator.
        async for piece in pieces:
            if piece.data:
                yield piece.data


async def as_records(
    pieces: AsyncIterator[Piece], *, heartbeat: float = HEARTBEAT
) -> AsyncIterator[bytes]:
    """A line of JSON a piece, an empty object when there was none for a while, and an end."""
    async with aclosing(with_heartbeats(pieces, heartbeat)) as coming:  # type: ignore[type-var]
        async for piece in coming:
            yield b"{}\n" if piece is None else _record(piece)
    yield b'{"end":true}\n'


def _record(piece: Piece) -> bytes:
    told = {
        "execution": str(piece.execution),
        "after": piece.after,
        "data": b64encode(piece.data).decode(),
        **({"note": True} if piece.is_note else {}),
    }
    return msgspec.json.encode(told) + b"\n"
