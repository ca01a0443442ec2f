"""The log of one execution: from its node while that is there, else what was kept of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID

from nodes import sessions
from nodes.log_watch import NotConnected, SessionEnded, TooManyWatches
from nodes.protocol.messages import LogEnd
from orchestrator.formatting import counted
from orchestrator.lifecycle import OBSERVED
from orchestrator.models import Execution, ExecutionOutput

from .reading import BEFORE, LOOK_AGAIN, NEVER_RAN, PATIENCE, Piece, Reading, ask


async def of_execution(
    key: UUID, reading: Reading, offset: int | None, *, patience: float = PATIENCE
) -> AsyncIterator[Piece]:
    """The bytes from *offset*, or the last ones, on; every gap is stated where it is."""
    if offset is None and reading.tail == 0 and not reading.follow:
        return
    row = await ask(lambda: Execution.objects.get(pk=key))
    at = _begin(reading, offset, row.observed)
    while reading.follow and row.observed in BEFORE:
        await asyncio.sleep(LOOK_AGAIN)
        row = await ask(lambda: Execution.objects.get(pk=key))
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
            row = await ask(lambda: Execution.objects.get(pk=key))
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
        return 0 if observed in BEFORE else None
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
    output = await ask(lambda: ExecutionOutput.objects.filter(execution=row).first())
    if output is None:
        why = "the node is not connected, and nothing was kept of what it printed"
        return lines.note(why if row.observed not in NEVER_RAN else "it never ran"), 0
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
