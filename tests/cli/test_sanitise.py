import pytest

from orchestrator.cli import sanitise

HOSTILE = {
    "\x1b]52;c;ZXZpbA==\x07after": "after",
    "\x1b[2Jafter": "after",
    "\x1b[31mred\x1b[0m": "red",
    "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\": "link",
    "\x1bP1$r\x1b\\after": "after",
    "\x9b2Jafter": "after",
    "\x1b(Bafter": "after",
    "over\rwritten": "overwritten",
    "bell\x07back\x08": "bellback",
    "reversed \u202etxt": "reversed txt",
    "zero\u200bwidth": "zerowidth",
    "tab\tand\nline\r\n": "tab\tand\nline\n",
    "é ≠ 漢": "é ≠ 漢",
}


@pytest.mark.parametrize(("hostile", "harmless"), HOSTILE.items())
def test_nothing_is_left_that_a_terminal_obeys(hostile, harmless):
    assert sanitise.block(hostile) == harmless


@pytest.mark.parametrize(("hostile", "harmless"), HOSTILE.items())
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_stream_is_harmless_wherever_it_is_cut(hostile, harmless, size):
    stream, data = sanitise.Stream(), hostile.encode()
    got = "".join(stream.feed(data[i : i + size]) for i in range(0, len(data), size))
    assert got == harmless


def test_a_sequence_without_end_does_not_keep_the_rest_for_ever():
    stream = sanitise.Stream()
    stream.feed(b"\x1b]52;c;")
    assert "visible" in stream.feed(b"x" * 5000 + b"visible") + stream.feed(b" still visible")


def test_one_line_stays_one_line():
    assert sanitise.line("a\nb\tc\x1b[2J") == "a b c"
