"""How often one credential may connect."""

from nodes.connect_limits import BURST, ConnectLimits
from nodes.token_bucket import MOST


def test_a_credential_that_connects_too_often_waits_and_no_other_does():
    limits = ConnectLimits()
    assert [limits.allows("a", 100.0) for _ in range(int(BURST) + 2)] == [True] * int(BURST) + [
        False,
        False,
    ]
    assert limits.allows("b", 100.0)
    assert not limits.allows("a", 100.9), "and what was refused costs nothing"
    assert [limits.allows("a", 101.0) for _ in range(2)] == [True, False]
    assert not limits.allows("a", 50.0), "a clock that goes back gives nothing"


def test_only_so_many_credentials_are_remembered():
    limits = ConnectLimits()
    for number in range(MOST):
        limits.allows(str(number), 0.0)
    assert limits.allows("new", 100.0)
    assert len(limits._buckets._of) == 1
