"""Logs over HTTP; what is read, and from where, is in `orchestrator.logs`.

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
from ninja import Query, Router, Schema
from pydantic import Field

from nodes.log_watch import HEARTBEAT, with_heartbeats
from orchestrator.logs import MOST_NAMED, Piece, Reading, Stream, of_execution, of_job

from . import references
from .callers import READ
from .listing import only
from .mistakes import mistake, shown
from .problems import invalid_parameters

RECORDS = "application/x-ndjson"

_TEXT = {
    "responses": {
        200: {
            "description": "the text, or to those who accept it a JSON record a piece",
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                RECORDS: {"schema": {"type": "string"}},
            },
        }
    }
}

_AFTER = r"^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:[0-9]{1,15}(,|$))*$"

router = Router(tags=["logs"])


class Asked(Schema):
    stream: Annotated[Stream, Field(description="which of the two")] = "stdout"
    tail: Annotated[int | None, Field(ge=0, le=2**40, description="only so many last bytes")] = None
    follow: Annotated[bool, Field(description="go on until the end of what is printed")] = False

    def reading(self) -> Reading:
        return Reading(stream=self.stream, tail=self.tail, follow=self.follow)


class AskedOfOne(Asked):
    offset: Annotated[int, Field(ge=0, le=2**53, description="the first byte")] = 0


class AskedOfMany(Asked):
    after: Annotated[
        str,
        Field(
            json_schema_extra={"pattern": _AFTER},
            max_length=64 * MOST_NAMED,
            description="where to go on, as `execution:offset` separated by commas",
        ),
    ] = ""


@router.get("/executions/{ref}/logs", auth=READ, openapi_extra=_TEXT)
def read_execution(
    request: HttpRequest, ref: str, asked: Query[AskedOfOne]
) -> StreamingHttpResponse:
    """What one execution has printed; missing bytes are named in a line that begins [muster."""
    only(request, asked)
    if asked.tail is not None and "offset" in request.GET:
        raise invalid_parameters([mistake("tail", "cannot be combined with offset", "Give one.")])
    row = references.execution(ref)
    offset = asked.offset if asked.tail is None else None
    return _answer(request, of_execution(row.pk, asked.reading(), offset))


@router.get("/jobs/{ref}/logs", auth=READ, openapi_extra=_TEXT)
def read_job(request: HttpRequest, ref: str, asked: Query[AskedOfMany]) -> StreamingHttpResponse:
    """What a job's executions of this round print, each line after the number of its slot."""
    only(request, asked)
    row = references.job(ref)
    if not re.fullmatch(_AFTER, asked.after):
        message = f"{shown(asked.after)} is no list of places to go on"
        hint = "Write `execution:offset`, whole ids and whole numbers, separated by commas."
        raise invalid_parameters([mistake("after", message, hint)])
    after = dict(it.split(":") for it in asked.after.split(",") if it)
    begins = {UUID(execution): int(offset) for execution, offset in after.items()}
    return _answer(request, of_job(row.pk, asked.reading(), begins))


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
