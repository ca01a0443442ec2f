"""The logs of all executions of a job, merged line by line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from uuid import UUID

from orchestrator.lifecycle import ENDED, Observed
from orchestrator.models import Execution, Job

from .execution import of_execution
from .reading import LOOK_AGAIN, NEVER_RAN, Piece, Reading, ask

#: Executions of one job that are read at once.
MOST_MERGED = 50
#: Pieces that wait for a reader of several logs; more are not fetched until it has read.
MOST_WAITING = 32

Reader = Callable[[UUID, Reading, int | None], AsyncIterator[Piece]]


async def of_job(
    key: UUID, reading: Reading, begins: Mapping[UUID, int], *, read: Reader = of_execution
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
            has_ended, found = await ask(lambda: _executions(key))
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
        .exclude(observed__in=NEVER_RAN - {Observed.NEW})
        .order_by("slot", "created_at")
    )
    return job.state in ENDED, list(rows.values_list("pk", "slot")[: MOST_MERGED + 1])
