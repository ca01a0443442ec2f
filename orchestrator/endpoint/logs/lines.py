"""Lines of bounded length: of a longer one the beginning, and a mark."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from .reading import Piece

LONGEST_LINE = 16 * 1024
"""Bytes of a line that are passed on; no page, terminal or reader is made for more."""

MARK = b" [muster: this line is longer, and cut here]\n"

_ENDED = re.compile(rb"([\r\n])")


class Lines:
    """Cuts lines that are too long, wherever their log is cut into pieces."""

    def __init__(self) -> None:
        self._length = 0
        self._is_cut = False

    def cut(self, data: bytes) -> bytes:
        """*data* without what is beyond the longest line, which is ended at once by a mark.

        A carriage return begins anew, too: a bar that is drawn over and over is no long line.
        """
        first, *more = data.replace(b"\r", b"\n").split(b"\n")
        longest = max((self._length + len(first), *map(len, more)))
        if not self._is_cut and longest <= LONGEST_LINE:
            self._length = len(more[-1]) if more else longest
            return data
        first, *more = _ENDED.split(data)
        kept = [self._goes_on(first)]
        for end, part in zip(more[::2], more[1::2], strict=True):
            kept.append(b"" if self._is_cut else end)
            self._length, self._is_cut = 0, False
            kept.append(self._goes_on(part))
        return b"".join(kept)

    def _goes_on(self, part: bytes) -> bytes:
        """What is passed on of *part*, in which no line ends."""
        if self._is_cut:
            return b""
        room = LONGEST_LINE - self._length
        self._length += len(part)
        if len(part) <= room:
            return part
        self._is_cut = True
        while room > 0 and part[room] & 0xC0 == 0x80:  # Between characters.
            room -= 1
        return part[:room] + MARK


async def cut_lines(pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    """*pieces* of one log, with no line that is too long."""
    lines = Lines()
    async with aclosing(pieces):  # type: ignore[type-var]  # An async generator.
        async for piece in pieces:
            if piece.is_note:
                lines = Lines()
                yield piece
            else:
                yield replace(piece, data=lines.cut(piece.data))
