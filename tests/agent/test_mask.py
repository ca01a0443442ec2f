"""What a task prints of its secrets is masked, however it is cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodes.agent.mask import SHORTEST, Mask, patterns

SECRET = b"hunter2-hunter2"


def shown(secrets: list[bytes], pieces: list[bytes]) -> bytes:
    mask = Mask(patterns(secrets))
    return b"".join([*map(mask.take, pieces), mask.finish()])


def test_a_value_is_masked_wherever_it_is_cut() -> None:
    text = b"before " + SECRET + b" after"
    for first in range(len(text)):
        for second in range(first, len(text)):
            pieces = [text[:first], text[first:second], text[second:]]
            assert shown([SECRET], pieces) == b"before *** after"


def test_what_cannot_be_the_beginning_of_a_secret_is_shown_at_once() -> None:
    mask = Mask(patterns([SECRET]))
    assert mask.take(b"Password: ") == b"Password: "
    assert mask.take(b"line\nhunt") == b"line\n"
    assert mask.take(b"ing") == b"hunting"


def test_what_only_began_like_a_secret_is_shown_at_the_end() -> None:
    assert shown([SECRET], [b"hunter2-hunter"]) == b"hunter2-hunter"


def test_a_secret_that_begins_another_hides_no_less_of_it() -> None:
    assert shown([b"abcdef", b"abcdefghij"], [b"x abcdef", b"ghij y"]) == b"x *** y"


def test_of_secrets_that_overlap_nothing_is_shown() -> None:
    assert shown([b"abcdef", b"defghi"], [b"x abcdefghi y"]) == b"x *** y"
    assert shown([b"abcdef", b"defghi"], [b"x abcd", b"efg", b"hi y"]) == b"x *** y"


def test_each_line_of_a_secret_with_several_is_masked() -> None:
    key = b"-----BEGIN KEY-----\nMIIBOgIBAAJB\nabc\n-----END KEY-----"
    assert shown([key], [b"<", key, b">"]) == b"<***>"
    assert shown([key], [b"MIIBOgIBAAJB\r\n"]) == b"***\r\n"
    assert shown([key], [b"abc\n"]) == b"abc\n"  # Shorter than SHORTEST: it is said to be shown.


SMALL = st.binary(min_size=SHORTEST, max_size=8).map(lambda it: bytes(b % 2 + 97 for b in it))


@given(
    secrets=st.lists(SMALL, min_size=1, max_size=3),
    text=st.lists(st.binary(max_size=4).map(lambda it: bytes(b % 2 + 97 for b in it)), max_size=20),
)
def test_no_secret_is_ever_shown_and_pieces_make_no_difference(
    secrets: list[bytes], text: list[bytes]
) -> None:
    said = shown(secrets, text)
    assert not any(secret in said for secret in secrets)
    assert said == shown(secrets, [b"".join(text)])


@given(text=st.lists(st.binary(max_size=30), max_size=20))
def test_what_is_no_secret_comes_through_as_it_is(text: list[bytes]) -> None:
    assert shown([b"\xff" * 64], text) == b"".join(text)
