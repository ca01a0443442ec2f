"""The log of one execution: from its node while that is there, else what was kept of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID

from nodes import log_forwarding
from nodes.log_watch import NotConnected, SessionEnded, TooManyWatches
from nodes.models import Node
from nodes.protocol.lifecycle import Approval, Connection
from nodes.protocol.messages import LogChunk, LogEnd
from orchestrator.explain.formatting import counted
from orchestrator.lifecycle import OBSERVED, Observed, is_unknown
from orchestrator.models import Execution, ExecutionOutput

from .polling import look, look_again
from .reading import BEFORE, NEVER_RAN, PATIENCE, Piece, Reading, Stream, ask


async def of_execution(
    key: UUID, reading: Reading, offset: int | None, *, patience: float = PATIENCE
) -> AsyncIterator[Piece]:
    """The bytes from *offset*, or the last ones, on; every gap is stated where it is.

    Where the log was cut it begins with a whole character, unless *offset* says where.
    """
    if offset is None and reading.tail == 0 and not reading.follow:
        return
    row = await look(key)
    at = _begin(reading, offset, row.observed)
    while reading.follow and row.observed in BEFORE:
        row = await look_again(key)
    text = _Text(is_cut=at is not None and at < 0)
    clock, gone_at, output = asyncio.get_running_loop().time, None, None
    while True:
        try:
            if at is None:
                at = await _end(row, reading)
                yield Piece(key, b"", at)
            pieces = _live(row, reading, at, text)
            async with aclosing(pieces):  # type: ignore[type-var]  # An async generator.
                async for piece in pieces:
                    at = piece.after
                    yield piece
            return
        except TooManyWatches:
            why = "too many read the logs of this node; try again later"
            yield Piece(key, text.note(why), -1 if at is None else at, is_note=True, for_now=why)
            return
        except NotConnected as error:
            why = str(error)
            if gone_at is None or isinstance(error, SessionEnded):
                gone_at = clock()
        row = await (look_again(key) if reading.follow else look(key))
        if output is None and reading.follow and row.observed in OBSERVED.terminal:
            output = await _output(row)  # Never another one, once it is there.
        if clock() - gone_at >= min(patience, _waits(row, output, reading, at)):
            break
    async for piece in _kept(row, reading, at, text, why, is_away=True):
        yield piece


def _waits(
    row: Execution, output: ExecutionOutput | None, reading: Reading, at: int | None
) -> float:
    """How many seconds a node that is away is worth waiting for, by what only it has.

    Who asked for a tail, and has read nothing yet, had rather see what was kept at once.
    """
    if not reading.follow:
        return 0.0
    if row.observed not in OBSERVED.terminal:
        return PATIENCE
    if at is None or at < 0 or row.node.connection == Connection.LOST or _gone(row.node):
        return 0.0
    if output is None:
        is_all = row.exit_code is not None or _never_ran(row)
    else:
        kept, size = _kept_of(output, reading.stream)
        is_all = at >= size - len(kept)
    return 0.0 if is_all else COMES_BACK_WITHIN


def _never_ran(row: Execution) -> bool:
    """Whether its node has nothing of it; what is lost, or whose end is unknown, may have run."""
    observed = Observed(row.observed)
    if observed in (Observed.CANCELLED, Observed.FAILED) and not is_unknown(observed, row.code):
        return row.started_at is None
    return observed in NEVER_RAN


def _gone(node: Node) -> str:
    """What became of a node that never comes back; empty of any other."""
    if node.removed_at is not None:
        return "removed"
    return "rejected" if node.approval == Approval.REJECTED else ""


async def _output(row: Execution) -> ExecutionOutput | None:
    return await ask(lambda: ExecutionOutput.objects.filter(execution=row).first())


def _kept_of(output: ExecutionOutput, stream: Stream) -> tuple[bytes, int]:
    """The last bytes of the stream, and how many there were in all."""
    if stream == "stdout":
        return output.stdout.encode(), output.stdout_size
    return output.stderr.encode(), output.stderr_size


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
    last = _watch(row, reading, -1, follow=False)
    async with aclosing(last):  # type: ignore[type-var]  # An async generator.
        async for piece in last:
            if not isinstance(piece, LogEnd):
                end = piece.offset + len(piece.data)
    return end


async def _live(row: Execution, reading: Reading, at: int, text: _Text) -> AsyncIterator[Piece]:
    """What the node sends to the end of the log; raises NotConnected."""
    pieces = _watch(row, reading, at, follow=reading.follow)
    async with aclosing(pieces):  # type: ignore[type-var]  # An async generator.
        async for piece in pieces:
            if isinstance(piece, LogEnd):
                if piece.reason:
                    async for rest in _dropped(row, reading, at, text, piece.reason):
                        yield rest
                return
            is_gap = 0 <= at < piece.offset
            begin, data = text.cut_to_whole(piece.offset, piece.data, after_gap=is_gap)
            if is_gap:
                note = text.note(f"{counted(begin - at, 'byte')} not kept any longer")
                yield Piece(row.pk, note, begin, is_note=True)
            at = begin + len(data)
            yield Piece(row.pk, text.pass_on(data), at)


async def _dropped(
    row: Execution, reading: Reading, at: int, text: _Text, why: str
) -> AsyncIterator[Piece]:
    """What came with the final report of a log that its node has no longer, or cannot read."""
    looks = LOOKS_FOR_REPORT if reading.follow else 0
    while looks and row.observed not in OBSERVED.terminal:
        row, looks = await look_again(row.pk), looks - 1
    async for piece in _kept(row, reading, at, text, why, is_away=False):
        yield piece


def _watch(
    row: Execution, reading: Reading, at: int, *, follow: bool
) -> AsyncIterator[LogChunk | LogEnd]:
    """Ask this process, or the one that holds the session of a node which is connected."""
    session = getattr(row.node, "session", None)
    is_connected = session is not None and row.node.connection == Connection.CONNECTED
    return log_forwarding.watch(
        str(row.pk),
        row.node_id,
        reading.stream,
        at,
        epoch=session.epoch if session is not None else 0,
        address=session.address if session is not None and is_connected else "",
        follow=follow,
        credit=reading.ahead,
    )


async def _kept(
    row: Execution, reading: Reading, at: int | None, text: _Text, why: str, *, is_away: bool
) -> AsyncIterator[Piece]:
    """The rest as far as it came with the final report; *why* its node gives no more."""
    if at is None:  # From an end that its node has not told, and after which may be more.
        if row.observed not in OBSERVED.terminal:
            yield Piece(row.pk, text.note(why), -1, is_note=True, for_now=why)
        return
    output = await _output(row)
    gone = _gone(row.node)
    if output is None:
        if row.exit_code is not None:
            return  # The report of its end came, and told of no output.
        if _never_ran(row):
            note = "it never ran"
        elif gone:
            note = (
                f"the node {row.node.name} was {gone}, and nothing was kept of what it printed; "
                "only running it again shows that"
            )
        elif is_away:
            note = f"{why}, and nothing was kept of what it printed"
        else:
            note = why
        for_now = why if is_away and row.observed not in OBSERVED.terminal else ""
        yield Piece(row.pk, text.note(note), max(at, 0), is_note=True, for_now=for_now)
        return
    kept, size = _kept_of(output, reading.stream)
    if at < 0:
        at = max(0, size + at)
    kept_from = max(0, size - len(kept))
    _, data = text.cut_to_whole(max(at, kept_from), kept[max(0, at - kept_from) :])
    if at >= size:
        data = b""  # Of bytes that are no text, former agents kept more than was printed.
    elif kept_from > at:
        missing = counted(kept_from - at, "byte")
        if gone:
            where = f"were only on the node {row.node.name}, which was {gone}"
        else:
            where = "on a node that is away" if is_away else "not kept any longer"
        yield Piece(row.pk, text.note(f"{missing} {where}"), kept_from, is_note=True)
    yield Piece(row.pk, text.pass_on(data), max(at, size))


class _Text:
    """Keeps notes of ours on lines of their own, and characters whole where a log was cut."""

    def __init__(self, *, is_cut: bool) -> None:
        self._at_start = True
        self._foreign = REST_OF_CHARACTER if is_cut else 0

    def cut_to_whole(
        self, begin: int, data: bytes, *, after_gap: bool = False
    ) -> tuple[int, bytes]:
        """Leave out what belongs to a character that began before the cut, and where it begins."""
        if after_gap:
            self._foreign = REST_OF_CHARACTER
        if begin == 0:
            self._foreign = 0  # Nothing came before.
        skip = 0
        while self._foreign and skip < len(data):
            if data[skip] & 0xC0 != 0x80:
                self._foreign = 0
            else:
                self._foreign -= 1
                skip += 1
        return begin + skip, data[skip:]

    def pass_on(self, data: bytes) -> bytes:
        if data:
            self._at_start = data.endswith(b"\n")
        return data

    def note(self, sentence: str) -> bytes:
        text = f"[muster: {sentence}]\n".encode()
        begun, self._at_start = not self._at_start, True
        return b"\n" + text if begun else text


COMES_BACK_WITHIN = 20.0
"""Seconds that a node may take to be back, when only the end of a log was kept."""

LOOKS_FOR_REPORT = 5
"""How often who follows a log to its end looks for the final report, which comes just after it."""

REST_OF_CHARACTER = 3
"""Bytes of one character after its first, at most."""
