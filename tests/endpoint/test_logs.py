"""Logs without a node: how lines are merged, characters kept whole, and looks shared."""

import asyncio
import tracemalloc
from itertools import pairwise
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.agent.logs import readable
from orchestrator.endpoint.logs import Piece
from orchestrator.endpoint.logs.execution import _Text
from orchestrator.endpoint.logs.job import LONGEST_PIECE, _prefixed
from orchestrator.endpoint.logs.lines import LONGEST_LINE, MARK
from orchestrator.endpoint.logs.polling import SharedPolling
from orchestrator.models import Execution

KEY = uuid4()


def merged(*pieces):
    """The pieces of one execution as a reader of its job gets them."""

    async def printed():
        for piece in pieces:
            yield piece

    async def run():
        waiting = asyncio.Queue()
        await _prefixed(printed(), b"0 | ", waiting)
        return [waiting.get_nowait() for _ in range(waiting.qsize())]

    return asyncio.run(run())


def printed(*data):
    """Pieces of a log, one after the other."""
    at, pieces = 0, []
    for it in data:
        at += len(it)
        pieces.append(Piece(KEY, it, at))
    return pieces


# --- lines ---------------------------------------------------------------------------------------


def test_a_line_without_an_end_is_passed_on_before_it_is_long():
    bar = b"\r 42 % of it" * 1000
    found = merged(*printed(*[bar] * 100))
    assert max(len(it.data) for it in found) <= LONGEST_PIECE + len(bar) + 10
    assert b"".join(it.data for it in found).replace(b"0 | ", b"").replace(b"\n", b"") == bar * 100
    assert all(a.after < b.after for a, b in pairwise(found[1:]))


def test_a_line_without_an_end_costs_no_more_than_a_piece_of_it():
    async def endless():
        for number in range(2000):
            yield Piece(KEY, b"x" * 8192, 8192 * (number + 1))

    async def run():
        waiting = asyncio.Queue(2)
        lines = asyncio.create_task(_prefixed(endless(), b"0 | ", waiting))
        passed_on = 0
        while not lines.done() or waiting.qsize():
            passed_on += len((await waiting.get()).data)
        return passed_on

    tracemalloc.start()
    try:
        assert asyncio.run(run()) == len(b"0 | ") + LONGEST_LINE + len(MARK)
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("begin", ["", "a", "ab", "abc"])
@pytest.mark.parametrize("character", ["é", "\u20ac", "\U0001f980"])
def test_a_long_line_is_cut_between_characters(begin, character):
    line = begin + character * LONGEST_LINE
    (cut,) = [it.data.decode() for it in merged(*printed(line.encode())) if it.data]
    shown = cut.removeprefix("0 | ").removesuffix(MARK.decode())
    assert line.startswith(shown)
    assert LONGEST_LINE - 4 < len(shown.encode()) <= LONGEST_LINE


@pytest.mark.parametrize("begin", ["", "a", "ab", "abc"])
@pytest.mark.parametrize("character", ["é", "\u20ac", "\U0001f980"])
def test_a_bar_that_is_drawn_over_and_over_is_broken_between_characters(begin, character):
    line = begin + f"{99 * character}\r" * (LONGEST_PIECE // 99)
    lines = [it.data.decode() for it in merged(*printed(line.encode()))]
    assert "".join(lines).replace("0 | ", "").replace("\n", "") == line


def test_a_note_amid_a_line_has_one_of_its_own():
    *begun, note = [*printed(b"one\ntw"), Piece(KEY, b"\n[muster: gone]\n", 6, is_note=True)]
    assert merged(*begun, note) == [
        Piece(KEY, b"0 | one\n", 4),
        Piece(KEY, b"0 | tw\n", 6),
        Piece(KEY, b"0 | [muster: gone]\n", 6, is_note=True),
    ]


# --- characters ----------------------------------------------------------------------------------


@given(st.text(min_size=1), st.data())
def test_where_a_log_was_cut_it_begins_with_a_whole_character(text, data):
    whole = text.encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    size = data.draw(st.integers(1, 5))  # Pieces come as small as they please.
    cut, found, begin = _Text(is_cut=True), b"", at
    for start in range(at, len(whole), size):
        begin, rest = cut.cut_to_whole(start, whole[start : start + size])
        assert whole[begin : begin + len(rest)] == rest
        found += rest
    assert whole.decode().endswith(found.decode())
    assert at + 3 >= len(whole) - len(found)


def test_what_is_no_text_loses_no_more_than_a_character_could_have_had():
    assert _Text(is_cut=True).cut_to_whole(7, b"\x80" * 9) == (10, b"\x80" * 6)


def test_a_tail_that_is_the_whole_log_loses_nothing():
    assert _Text(is_cut=True).cut_to_whole(0, b"\xa9 2026\n") == (0, b"\xa9 2026\n")


@given(st.binary(max_size=300), st.integers(0, 300))
def test_what_is_kept_has_its_bytes_where_they_were_printed(printed, cut):
    """So that an offset in the log is one in what is kept of it, also where that was no text."""
    kept = readable(printed[cut:], len(printed)).encode()
    begins = len(printed) - len(kept)
    assert begins <= min(cut, len(printed)) + 3
    for at, byte in enumerate(kept):
        assert byte in (printed[begins + at], ord("?"))


# --- looks ---------------------------------------------------------------------------------------


async def test_fifty_that_wait_are_looked_at_with_one_query():
    asked = []

    def find(keys):
        asked.append(set(keys))
        return {key: Execution(pk=key) for key in keys}

    looks, keys = SharedPolling(find, every=0.01), [uuid4() for _ in range(50)]
    for _ in range(3):
        found = await asyncio.gather(*map(looks.again, keys))
        assert [it.pk for it in found] == keys
    assert asked == [set(keys)] * 3


async def test_who_leaves_and_what_is_gone_harm_no_other_that_waits():
    there, gone = uuid4(), uuid4()
    looks = SharedPolling(lambda keys: {there: Execution(pk=there)}, every=0.05)
    leaving = asyncio.create_task(looks.again(there))
    staying = asyncio.create_task(looks.again(there))
    lost = asyncio.create_task(looks.again(gone))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).pk == there
    with pytest.raises(Execution.DoesNotExist):
        await lost
