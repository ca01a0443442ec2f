"""The fingerprint that both ends compute over what a node holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodes.protocol.session import digest

ids = st.text("abcdef0123456789-", min_size=1, max_size=36)
held = st.dictionaries(ids, st.booleans())


@given(held, st.randoms())
def test_the_order_of_telling_does_not_matter(executions, random):
    pairs = list(executions.items())
    random.shuffle(pairs)
    assert digest(pairs) == digest(executions.items())


@given(held, held)
def test_different_holdings_have_different_digests(one, other):
    assert (digest(one.items()) == digest(other.items())) == (one == other)


def test_it_is_short():
    assert len(digest([("e", True)] * 1000)) == 16
