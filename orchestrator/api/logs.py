"""What tasks print, as plain text: live from the node, or what was kept of it when it is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Annotated, Literal, TypeVar
from uuid import UUID

from asgiref.sync import sync_to_async
from django.http import HttpRequest, StreamingHttpResponse
from ninja import Query, Router, Schema
from pydantic import Field

from nodes import sessions
from nodes.intake import with_connection
from nodes.protocol.messages import LogEnd
from nodes.watches import NotConnected, TooManyWatches
from orchestrator.lifecycle import ENDED, OBSERVED, Observed
from orchestrator.models import Execution, ExecutionOutput, Job

from . import references
from .callers import READ
from .listing import only
from .mistakes import mistake
from .problems import invalid_parameters

#: How often to look whether a task has started, a node is back, or a job has new executions.
LOOK_AGAIN = 0.5
#: How long the node of a followed task may be away before the reader is told and let go.
PATIENCE = 60.0
#: Executions of one job that are read at once.
MOST_MERGED = 50
#: Pieces that wait for a reader of several logs; more are not fetched until it has read.
MOST_WAITING = 32

_BEFORE = frozenset(OBSERVED.live) - {Observed.RUNNING, Observed.PUBLISHING}
_TEXT = {
    "responses": {
        200: {"description": "the text", "content": {"text/plain": {"schema": {"type": "string"}}}}
    }
}

T = TypeVar("T")
router = Router(tags=["logs"])


class Reading(Schema):
    stream: Annotated[Literal["stdout", "stderr"], Field(description="which of the two")] = "stdout"
    tail: Annotated[int | None, Field(ge=0, le=2**40, description="only so many last bytes")] = None
    follow: Annotated[bool, Field(description="go on until the end of what is printed")] = False


class ReadingOne(Reading):
    offset: Annotated[int, Field(ge=0, le=2**53, description="the first byte")] = 0


@router.get("/executions/{ref}/logs", auth=READ, openapi_extra=_TEXT)
def read_execution(
    request: HttpRequest, ref: str, reading: Query[ReadingOne]
) -> StreamingHttpResponse:
    """What one execution has printed; missing bytes are named in a line that begins [muster."""
    only(request, reading)
    if reading.tail is not None and "offset" in request.GET:
        raise invalid_parameters([mistake("tail", "cannot be combined with offset", "Give one.")])
    row = references.execution(ref)
    return _plain(_of_execution(row.pk, reading, reading.offset))


@router.get("/jobs/{ref}/logs", auth=READ, openapi_extra=_TEXT)
def read_job(request: HttpRequest, ref: str, reading: Query[Reading]) -> StreamingHttpResponse:
    """What a job's executions of this round print, each line after the number of its slot."""
    only(request, reading)
    row = references.job(ref)
    return _plain(_of_job(row.pk, reading))


def _plain(text: AsyncIterator[bytes]) -> StreamingHttpResponse:
    return StreamingHttpResponse(
        text,
        content_type="text/plain; charset=utf-8",
        headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"},
    )


# --- one execution ---------------------------------------------------------------------------


async def _of_execution(key: UUID, reading: Reading, offset: int) -> AsyncIterator[bytes]:
    """The bytes from *offset*, or the last ones, on; every gap is stated where it is."""
    if reading.tail == 0 and not reading.follow:
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
            async for start, data in _live(row, reading, at, lines):
                if at >= 0 and start > at:
                    yield lines.note(f"{start - at} bytes are not kept any longer")
                at, away = start + len(data), 0.0
                yield lines.pass_on(data)
            if lines.reason:
                yield lines.note(lines.reason)
            return
        except TooManyWatches:
            yield lines.note("too many read the logs of this node; try again later")
            return
        except NotConnected:
            row = await _ask(lambda: Execution.objects.get(pk=key))
            if row.observed in OBSERVED.terminal or not reading.follow or away >= PATIENCE:
                break
            away += LOOK_AGAIN
            await asyncio.sleep(LOOK_AGAIN)
    if at is not None:
        yield await _kept(row, reading, at, lines)


def _begin(reading: Reading, offset: int, observed: str) -> int | None:
    """The first byte, or so many from the end, below zero; None is the end as its node knows it."""
    if reading.tail == 0:
        return 0 if observed in _BEFORE else None
    return offset if reading.tail is None else -reading.tail


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


async def _kept(row: Execution, reading: Reading, at: int, lines: _Lines) -> bytes:
    """The rest as far as it came with the final report."""
    output = await _ask(lambda: ExecutionOutput.objects.filter(execution=row).first())
    if output is None:
        why = "the node is not connected, and nothing was kept of what it printed"
        return lines.note(why if row.observed not in _NEVER_RAN else "it never ran")
    text = (output.stdout if reading.stream == "stdout" else output.stderr).encode()
    size = output.stdout_size if reading.stream == "stdout" else output.stderr_size
    if at < 0:
        return lines.pass_on(text[at:])
    kept_from = max(0, size - len(text))
    gap = (
        lines.note(f"{kept_from - at} bytes are on a node that is away") if kept_from > at else b""
    )
    return gap + lines.pass_on(text[max(0, at - kept_from) :])


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

Reader = Callable[[UUID, Reading, int], AsyncIterator[bytes]]


async def _of_job(
    key: UUID, reading: Reading, *, read: Reader = _of_execution
) -> AsyncIterator[bytes]:
    """The lines of all, as they come; those of one execution stay in their order.

    Raises what one of them raises: who reads would take the rest for the whole.
    """
    waiting: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)
    readers: dict[UUID, asyncio.Task[None]] = {}
    try:
        while True:
            has_ended, found = await _ask(lambda: _executions(key))
            for execution, slot in found:
                if execution not in readers and len(readers) < MOST_MERGED:
                    text = read(execution, reading, 0)
                    lines = _prefixed(text, f"{slot} | ".encode(), waiting)
                    readers[execution] = asyncio.create_task(lines)
            async for line in _until_looking_again(waiting, readers):
                yield line
            ended = [it for it in readers.values() if it.done()]
            for reader in ended:
                reader.result()
            if len(ended) == len(readers) and (has_ended or not reading.follow):
                break
        if len(found) > MOST_MERGED:
            yield f"[muster: only the first {MOST_MERGED} executions are shown]\n".encode()
    finally:
        for task in readers.values():
            task.cancel()
        await asyncio.gather(*readers.values(), return_exceptions=True)


async def _until_looking_again(
    waiting: asyncio.Queue[bytes], readers: dict[UUID, asyncio.Task[None]]
) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    until = loop.time() + LOOK_AGAIN
    while loop.time() < until:
        try:
            async with asyncio.timeout(min(0.05, LOOK_AGAIN)):
                data = await waiting.get()
        except TimeoutError:
            if all(it.done() for it in readers.values()) and waiting.empty():
                # Nothing will come of these any more; do not hurry if there were none at all.
                await asyncio.sleep(0 if readers else LOOK_AGAIN)
                return
        else:
            yield data


async def _prefixed(
    text: AsyncIterator[bytes], prefix: bytes, waiting: asyncio.Queue[bytes]
) -> None:
    rest = b""
    async with aclosing(text):  # type: ignore[type-var]  # An async generator.
        async for data in text:
            *lines, rest = (rest + data).split(b"\n")
            if lines:
                await waiting.put(b"".join(prefix + line + b"\n" for line in lines))
    if rest:
        await waiting.put(prefix + rest + b"\n")


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
    """Ask the database, and keep no connection: the reader may stay for hours."""
    return await sync_to_async(with_connection)(question)
