"""The logs of all executions of a job, merged line by line."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now

from orchestrator.lifecycle import ENDED
from orchestrator.models import Execution, Job

from .execution import of_execution
from .lines import cut_lines
from .reading import BEFORE, LOOK_AGAIN, NEVER_RAN, Piece, Reading, ask

#: Executions of one job that are read at once; others wait until one of them has ended.
MOST_MERGED = 50
#: New executions that one look finds, at most; the next one finds the rest.
MOST_FOUND = 1000
#: Executions that may be named to read on after a break, at most: more make no address.
MOST_NAMED = 150
#: Pieces that wait for a reader of several logs; more are not fetched until it has read.
MOST_WAITING = 16
#: Bytes on their way from each of the executions, at most.
AHEAD = 16 * 1024
#: What ends no line, as a bar that is drawn over and over, is broken after so many bytes.
LONGEST_PIECE = 64 * 1024
#: What ends may be seen so much later: a transaction takes no longer.
SEEN_LATER = timedelta(minutes=2)

Reader = Callable[[UUID, Reading, int | None], AsyncIterator[Piece]]


async def of_job(
    key: UUID,
    reading: Reading,
    begins: Mapping[UUID, int],
    *,
    read: Reader = of_execution,
    most: int = MOST_MERGED,
    most_found: int = MOST_FOUND,
) -> AsyncIterator[Piece]:
    """The lines of all, as they come; those of one execution stay in their order.

    *begins* says where to go on, by execution; others are new, and read from their beginning.
    Without it, those that are there at first are read from their tail, when one is asked for.
    At most *most* are read at once; others wait, and a note says so to who follows.
    Raises what one of them raises: who reads would take the rest for the whole.
    """
    each = replace(reading, ahead=min(reading.ahead, AHEAD))
    waiting: asyncio.Queue[Piece] = asyncio.Queue(MOST_WAITING)
    readers: dict[UUID, asyncio.Task[None]] = {}
    unread: deque[_Found] = deque()
    known: set[UUID] = set()
    begin = 0 if begins else None
    since: datetime | None = None
    is_last, told = False, False
    try:
        while True:
            if not unread and not is_last:
                seen = await ask(partial(_look, key, known, since, most_found))
                known.update(it.key for it in seen.new)
                unread.extend(replace(it, begin=begins.get(it.key, begin)) for it in seen.new)
                if len(seen.new) < most_found:
                    begin = 0  # What comes later is new to the reader, however short the tail.
                    since = seen.at - SEEN_LATER
                    is_last = seen.is_over or not reading.follow
            while unread and len(readers) < most:
                it = unread.popleft()
                pieces = read(it.key, each, it.begin)
                lines = _prefixed(pieces, f"{it.slot} | ".encode(), waiting)
                readers[it.key] = asyncio.create_task(lines)
            if unread and reading.follow and not told:
                told = True
                yield Piece(key, _waits(most, len(unread)), -1, is_note=True)
            async for piece in _until_looking_again(waiting, readers, is_last=is_last):
                yield piece
            for ended in [it for it in readers if readers[it].done()]:
                readers.pop(ended).result()
            if is_last and not readers and not unread and waiting.empty():
                break
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

    The first piece tells its place also when it ends no line: where to begin must be known before
    the first.
    """
    rest, last = bytearray(), None
    async with aclosing(cut_lines(pieces)) as cut:  # type: ignore[type-var]
        async for piece in cut:
            if piece.is_note and rest and last is not None:
                await waiting.put(replace(last, data=_with(prefix, rest) + b"\n"))
                rest.clear()
            data = piece.data.lstrip(b"\n") if piece.is_note else piece.data
            lines = _whole_lines(rest, data)
            if lines or last is None:
                after = piece.after - len(rest)
                await waiting.put(replace(piece, data=_with(prefix, lines), after=after))
            last = piece
    if rest and last is not None:
        await waiting.put(replace(last, data=_with(prefix, rest) + b"\n"))


def _whole_lines(rest: bytearray, data: bytes) -> bytes:
    """The lines that *data* ends, after *rest*, which becomes the line that is begun.

    Of a line that does not end the beginning is passed on as a line, cut between characters.
    """
    end = data.rfind(b"\n") + 1
    lines = b""
    if end:
        lines = bytes(rest) + data[:end]
        rest[:] = data[end:]
    else:
        rest += data
    while len(rest) > LONGEST_PIECE:
        cut = LONGEST_PIECE
        while cut > LONGEST_PIECE - 3 and rest[cut] & 0xC0 == 0x80:
            cut -= 1
        lines += bytes(rest[:cut]) + b"\n"
        del rest[:cut]
    return lines


def _with(prefix: bytes, lines: bytes | bytearray) -> bytes:
    """Put *prefix* before each of *lines*."""
    ended = lines.endswith(b"\n")
    whole = bytes(lines[:-1]) if ended else bytes(lines)
    marked = prefix + whole.replace(b"\n", b"\n" + prefix) if lines else b""
    return marked + b"\n" if ended else marked


def _waits(most: int, count: int) -> bytes:
    sentence = f"{most} executions are read at once; {count} wait until one has ended"
    return f"[muster: {sentence}]\n".encode()


# --- looking -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    key: UUID
    slot: int
    begin: int | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """Whether nothing more can come, and the new executions of the round that have begun to run."""

    at: datetime
    is_over: bool
    new: list[_Found]


def _look(key: UUID, known: Collection[UUID], since: datetime | None, most: int) -> _Seen:
    """The first *most* of the job beside *known*: at first of all, later of what ended *since*."""
    job = Job.objects.annotate(now=Now()).get(pk=key)
    of_round = Execution.objects.filter(job=job, round=job.round)
    begun = of_round.exclude(observed__in=NEVER_RAN | BEFORE)
    if since is not None:
        begun = begun.filter(Q(ended_at__isnull=True) | Q(ended_at__gt=since))
    rows = begun.order_by("slot", "created_at").values_list("pk", "slot")
    # Known ones are left out here: a statement takes 65,535 parameters, and a LIMIT would come
    # before the filter.
    new = (_Found(*row) for row in rows.iterator(chunk_size=MOST_FOUND) if row[0] not in known)
    is_over = job.state in ENDED and not of_round.filter(observed__in=BEFORE).exists()
    return _Seen(job.now, is_over, list(islice(new, most)))
