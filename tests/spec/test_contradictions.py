"""Constraints that no node can satisfy together."""

import pytest

from orchestrator.spec import contradictions
from orchestrator.spec.selectors import parse


def found(*constraints):
    return [
        (number, [str(one) for one in wanted])
        for number, wanted in contradictions([parse(text) for text in constraints])
    ]


@pytest.mark.parametrize(
    "constraints",
    [
        ["zone = a", "zone = b"],
        ["zone in (a, b)", "zone in (c, d)"],
        ["zone = a", "zone != a"],
        ["zone in (a, b)", "zone notin (a, b)"],
        ["ssd", "!ssd"],
        ["ssd = yes", "!ssd"],
        ["cores >= 8", "cores < 4"],
        ["cores > 4", "cores < 4"],
        ["cores > 4", "cores <= 4"],
        ["cores = 2", "cores >= 4"],
        ["docker = 1.2", "docker version>= 2.0"],
        ["host = rack-a", "host =~ rack-[0-9]+"],
    ],
)
def test_what_excludes_each_other_is_found(constraints):
    assert found(*constraints) == [(1, constraints)]
    assert found(", ".join(constraints)) == [(0, constraints)] or "=~" in constraints[1]


@pytest.mark.parametrize(
    "constraints",
    [
        [],
        ["zone = a", "zone in (a, b)"],
        ["zone != a", "zone != b", "!zone"],
        ["zone != a", "zone"],
        ["cores >= 4", "cores <= 4"],
        ["cores > 4", "cores < 4.1"],
        ["cores > -1", "cores < 0"],
        ["cores >= 4", "cores != 4"],
        ["bytes > 9007199254740992", "bytes < 9007199254740994"],
        [f"bytes > {'9' * 40}", f"bytes < {'9' * 40}.0000000001"],
        ["docker version>= 1.2", "docker version< 1.3"],
        ["host =~ a+", "host =~ b+"],
        ["a = 1", "b = 2"],
    ],
)
def test_what_may_hold_together_is_not(constraints):
    assert found(*constraints) == []


def test_three_that_exclude_each_other_only_together_are_all_named():
    three = ["zone in (a, b)", "zone in (b, c)", "zone in (a, c)"]
    assert found(*three) == [(2, three)]
