"""What tasks print: live from the node, or what was kept of it when it is away.

As plain text, or for programs that read on where a connection broke as lines of JSON: each tells
where in the log it ends, one without anything says that the server is there, and the last one that
there is no more.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeVar
from uuid import UUID

import msgspec
from asgiref.sync import sync_to_async
from django.db import Error
from django.http import HttpRequest, StreamingHttpResponse
from ninja import Query, Router, Schema
from pydantic import Field

from nodes import sessions
from nodes.intake import with_connection
from nodes.log_watch import NotConnected, SessionEnded, TooManyWatches
from nodes.protocol.messages import LogEnd
from orchestrator.endpoint.health import trouble_behind
from orchestrator.lifecycle import ENDED, OBSERVED, Observed
from orchestrator.models import Execution, ExecutionOutput, Job
from orchestrator.scheduling.formatting import counted

from . import references
from .callers import READ
from .listing import only
from .mistakes import mistake, shown
from .problems import invalid_parameters

#: How often to look whether a task has started, a node is back, or a job has new executions.
LOOK_AGAIN = 0.5
#: How long the node of a followed task may be away before the reader is told and let go.
PATIENCE = 60.0
#: Executions of one job that are read at once.
MOST_MERGED = 50
#: Seconds after which a reader of records hears that the server is there.
HEARTBEAT = 5.0
RECORDS = "application/x-ndjson"
#: Pieces that wait for a reader of several logs; more are not fetched until it has read.
MOST_WAITING = 32

_BEFORE = frozenset(OBSERVED.live) - {Observed.RUNNING, Observed.PUBLISHING}
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

T = TypeVar("T")
_AFTER = r"^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:[0-9]{1,15}(,|$))*$"

router = Router(tags=["logs"])


class Reading(Schema):
    stream: Annotated[Literal["stdout", "stderr"], Field(description="which of the two")] = "stdout"
    tail: Annotated[int | None, Field(ge=0, le=2**40, description="only so many last bytes")] = None
    follow: Annotated[bool, Field(description="go on until the end of what is printed")] = False


class ReadingOne(Reading):
    offset: Annotated[int, Field(ge=0, le=2**53, description="the first byte")] = 0


class ReadingMany(Reading):
    after: Annotated[
        str,
        Field(
            json_schema_extra={"pattern": _AFTER},
            max_length=64 * MOST_MERGED,
            description="where to go on, as `execution:offset` separated by commas",
        ),
    ] = ""


@router.get("/executions/{ref}/logs", auth=READ, openapi_extra=_TEXT)
def read_execution(
    request: HttpRequest, ref: str, reading: Query[ReadingOne]
) -> StreamingHttpResponse:
    """What one execution has printed; missing bytes are named in a line that begins [muster."""
    only(request, reading)
    if reading.tail is not None and "offset" in request.GET:
        raise invalid_parameters([mistake("tail", "cannot be combined with offset", "Give one.")])
    row = references.execution(ref)
    offset = reading.offset if reading.tail is None else None
    return _answer(request, _of_execution(row.pk, reading, offset))


@router.get("/jobs/{ref}/logs", auth=READ, openapi_extra=_TEXT)
def read_job(request: HttpRequest, ref: str, reading: Query[ReadingMany]) -> StreamingHttpResponse:
    """What a job's executions of this round print, each line after the number of its slot."""
    only(request, reading)
    row = references.job(ref)
    if not re.fullmatch(_AFTER, reading.after):
        message = f"{shown(reading.after)} is no list of places to go on"
        hint = "Write `execution:offset`, whole ids and whole numbers, separated by commas."
        raise invalid_parameters([mistake("after", message, hint)])
    after = dict(it.split(":") for it in reading.after.split(",") if it)
    begins = {UUID(execution): int(offset) for execution, offset in after.items()}
    return _answer(request, _of_job(row.pk, reading, begins))


@dataclass(frozen=True, slots=True)
class Piece:
    """Something to print, and where in the log of which execution one has read then."""

    execution: UUID
    data: bytes
    after: int


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
            yield piece.data


async def as_records(
    pieces: AsyncIterator[Piece], *, heartbeat: float = HEARTBEAT
) -> AsyncIterator[bytes]:
    """A line of JSON a piece, an empty object when there was none for a while, and an end."""
    async with aclosing(pieces):  # type: ignore[type-var]  # An async generator.
        coming = asyncio.ensure_future(anext(pieces, None))
        try:
            while True:
                await asyncio.wait({coming}, timeout=heartbeat)
                if not coming.done():
                    yield b"{}\n"
                    continue
                piece = coming.result()
                if piece is None:
                    yield b'{"end":true}\n'
                    return
                yield _record(piece)
                coming = asyncio.ensure_future(anext(pieces, None))
        finally:
            coming.cancel()
            await asyncio.wait({coming})


def _record(piece: Piece) -> bytes:
    told = {
        "execution": str(piece.execution),
        "after": piece.after,
        "data": b64encode(piece.data).decode(),
    }
    return msgspec.json.encode(told) + b"\n"


# --- one execution ---------------------------------------------------------------------------


async def _of_execution(
    key: UUID, reading: Reading, offset: int | None, *, patience: float = PATIENCE
) -> AsyncIterator[Piece]:
    """The bytes from *offset*, or the last ones, on; every gap is stated where it is."""
    if offset is None and reading.tail == 0 and not reading.follow:
        return
    row = await _ask(lambda: Execution.objects.get(pk=key))
    at = _begin(reading, offset, row.observed)
    while reading.follow and row.observed in _BEFORE:
        await asyncio.sleep(LOOK_AGAIN)
        row = await _ask(lambda: Execution.objects.get(pk=key))
    lines, away = _Lines(), 0.0
    while True:
        try:
            if at is None:
                at = await _end(row, reading)
                yield Piece(key, b"", at)
            async for start, data in _live(row, reading, at, lines):
                if at >= 0 and start > at:
                    gap = lines.note(f"{counted(start - at, 'byte')} not kept any longer")
                    yield Piece(key, gap, start)
                at = start + len(data)
                yield Piece(key, lines.pass_on(data), at)
            if lines.reason:
                yield Piece(key, lines.note(lines.reason), at)
            return
        except TooManyWatches:
            note = lines.note("too many read the logs of this node; try again later")
            yield Piece(key, note, -1 if at is None else at)
            return
        except NotConnected as why:
            away = 0.0 if isinstance(why, SessionEnded) else away + LOOK_AGAIN
            row = await _ask(lambda: Execution.objects.get(pk=key))
            if row.observed in OBSERVED.terminal or not reading.follow or away > patience:
                break
            await asyncio.sleep(LOOK_AGAIN)
    if at is not None:
        text, size = await _kept(row, reading, at, lines)
        yield Piece(key, text, max(at, size))


def _begin(reading: Reading, offset: int | None, observed: str) -> int | None:
    """The first byte, or so many from the end, below zero; None is the end as its node knows it."""
    if offset is not None or reading.tail is None:
        return offset or 0
    if reading.tail == 0:
        return 0 if observed in _BEFORE else None
    return -reading.tail


async def _end(row: Execution, reading: Reading) -> int:
    """How much has been printed by now, by the place of the last byte; raises NotConnected."""
    end = 0
    last = sessions.current().watch(str(row.pk), row.node_id, reading.stream, -1, follow=False)
    async with aclosing(last):  # type: ignore[type-var]  # An async generator.
        async for piece in last:
            if not isinstance(piece, LogEnd):
                end = piece.offset + len(piece.data)
    return end


async def _live(
    row: Execution, reading: Reading, at: int, lines: _Lines
) -> AsyncIterator[tuple[int, bytes]]:
    """The pieces that the node sends, each with where it begins; raises NotConnected."""
    pieces = sessions.current().watch(
        str(row.pk), row.node_id, reading.stream, at, follow=reading.follow
    )
    async with aclosing(pieces):  # type: ignore[type-var]  # An async generator.
        async for piece in pieces:
            if isinstance(piece, LogEnd):
                lines.reason = piece.reason
                return
            yield piece.offset, piece.data


async def _kept(row: Execution, reading: Reading, at: int, lines: _Lines) -> tuple[bytes, int]:
    """The rest as far as it came with the final report, and the size of the whole."""
    output = await _ask(lambda: ExecutionOutput.objects.filter(execution=row).first())
    if output is None:
        why = "the node is not connected, and nothing was kept of what it printed"
        return lines.note(why if row.observed not in _NEVER_RAN else "it never ran"), 0
    text = (output.stdout if reading.stream == "stdout" else output.stderr).encode()
    size = output.stdout_size if reading.stream == "stdout" else output.stderr_size
    if at >= size:
        return b"", size  # The text may be longer than what was printed: bytes became characters.
    if at < 0:
        return lines.pass_on(text[at:]), size
    kept_from = max(0, size - len(text))
    gap = b""
    if kept_from > at:
        gap = lines.note(f"{counted(kept_from - at, 'byte')} on a node that is away")
    return gap + lines.pass_on(text[max(0, at - kept_from) :]), size


_NEVER_RAN = {Observed.NEW, Observed.ASK_FOR_BID_REJECTED, Observed.BID_REJECTED}


class _Lines:
    """Keeps notes of ours on lines of their own."""

    def __init__(self) -> None:
        self.reason = ""
        self._at_start = True

    def pass_on(self, data: bytes) -> bytes:
        if data:
            self._at_start = data.endswith(b"\n")
        return data

    def note(self, sentence: str) -> bytes:
        text = f"[muster: {sentence}]\n".encode()
        begun, self._at_start = not self._at_start, True
        return b"\n" + text if begun else text


# --- all executions of a job -----------------------------------------------------------------

Reader = Callable[[UUID, Reading, int | None], AsyncIterator[Piece]]


async def _of_job(
    key: UUID, reading: Reading, begins: Mapping[UUID, int], *, read: Reader = _of_execution
) -> AsyncIterator[Piece]:
    """The lines of all, as they come; those of one execution stay in their order.

    *begins* says where to go on, by execution; others are new, and read from their beginning.
    Without it, those that are there at first are read from their tail, when one is asked for.
    Raises what one of them raises: who reads would take the rest for the whole.
    """
    waiting: asyncio.Queue[Piece] = asyncio.Queue(MOST_WAITING)
    readers: dict[UUID, asyncio.Task[None]] = {}
    begin = 0 if begins else None
    try:
        while True:
            has_ended, found = await _ask(lambda: _executions(key))
            is_last = has_ended or not reading.follow
            for execution, slot in found:
                if execution not in readers and len(readers) < MOST_MERGED:
                    pieces = read(execution, reading, begins.get(execution, begin))
                    lines = _prefixed(pieces, f"{slot} | ".encode(), waiting)
                    readers[execution] = asyncio.create_task(lines)
            begin = 0  # What comes later is new to the reader, however short the tail.
            async for piece in _until_looking_again(waiting, readers, is_last=is_last):
                yield piece
            ended = [it for it in readers.values() if it.done()]
            for reader in ended:
                reader.result()
            if is_last and len(ended) == len(readers) and waiting.empty():
                break
        if len(found) > MOST_MERGED:
            note = f"[muster: only the first {MOST_MERGED} executions are shown]\n".encode()
            yield Piece(key, note, 0)
    finally:
        for task in readers.values():
            task.cancel()
        await asyncio.gather(*readers.values(), return_exceptions=True)


async def _until_looking_again(
    waiting: asyncio.Queue[Piece], readers: dict[UUID, asyncio.Task[None]], *, is_last: bool
) -> AsyncIterator[Piece]:
    """What comes before the next look at the job, or to the end when nothing new can be found."""
    loop = asyncio.get_running_loop()
    until = loop.time() + LOOK_AGAIN
    while loop.time() < until:
        try:
            async with asyncio.timeout(min(0.05, LOOK_AGAIN)):
                piece = await waiting.get()
        except TimeoutError:
            if is_last and all(it.done() for it in readers.values()) and waiting.empty():
                return
        else:
            yield piece


async def _prefixed(
    pieces: AsyncIterator[Piece], prefix: bytes, waiting: asyncio.Queue[Piece]
) -> None:
    """Pass whole lines on, so that who reads on after one begins with the next.

    A piece that ends none tells its place alone: where to begin must be known before the first.
    """
    rest, last = b"", None
    async with aclosing(pieces):  # type: ignore[type-var]  # An async generator.
        async for last in pieces:
            *lines, rest = (rest + last.data).split(b"\n")
            data = b"".join(prefix + line + b"\n" for line in lines)
            await waiting.put(replace(last, data=data, after=last.after - len(rest)))
    if rest and last is not None:
        await waiting.put(replace(last, data=prefix + rest + b"\n"))


def _executions(key: UUID) -> tuple[bool, list[tuple[UUID, int]]]:
    """Whether the job has ended, and the executions of its round that ran or may run."""
    job = Job.objects.get(pk=key)
    rows = (
        Execution.objects.filter(job=job, round=job.round)
        .exclude(observed__in=_NEVER_RAN - {Observed.NEW})
        .order_by("slot", "created_at")
    )
    return job.state in ENDED, list(rows.values_list("pk", "slot")[: MOST_MERGED + 1])


async def _ask(question: Callable[[], T]) -> T:
    """Ask the database, and keep no connection: the reader may stay for hours.

    A database that is away for a moment is asked again, since what was told cannot be taken back.
    """
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            return await sync_to_async(with_connection)(question)
        except Error as error:
            if trouble_behind(error) is None or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(LOOK_AGAIN)
