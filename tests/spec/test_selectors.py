"""The grammar of constraints and what each requirement means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes import labels
from nodes.errors import InvalidLabels
from nodes.labels import LONGEST_VALUE
from orchestrator.spec import selectors
from orchestrator.spec.selectors import BadSelector, Requirement, parse
from tests import pace

NODE = {
    "arch": "amd64",
    "zone": "eu-1",
    "cores": "16",
    "load": "0.5",
    "ssd": "",
    "docker": "24.0.7",
    "kernel": "5.10.0-21-amd64",
    "beta": "2.0.0-rc1",
    "host": "rack-12",
    "odd": "a, b) =~ c",
    "build": "20240101120001",
    "deep": "1.2.3.4.5.6.7",
    "bytes": "9007199254740993",
    "serial": "1" * 40 + ".0000000000001",
    "quote": '"x"',
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("arch = amd64", True),
        ("arch=amd64", True),
        ("arch == amd64", True),
        ("arch = arm64", False),
        ("arch != arm64", True),
        ("arch != amd64", False),
        ("missing != anything", True),
        ("missing = anything", False),
        ("zone in (eu-1, eu-2)", True),
        ("zone in (us-1)", False),
        ("missing in (a)", False),
        ("zone notin (eu-1)", False),
        ("zone notin (us-1)", True),
        ("missing notin (a)", True),
        ("ssd", True),
        ("missing", False),
        ("!missing", True),
        ("! missing", True),
        ("!ssd", False),
        ("cores > 8", True),
        ("cores > 16", False),
        ("cores >= 16", True),
        ("cores < 100", True),
        ("cores <= 15.5", False),
        ("load < 1", True),
        ("arch > 1", False),
        ("arch < 1", False),
        ("missing > 0", False),
        ("docker version>= 24.0", True),
        ("docker version> 24.0.7", False),
        ("docker version< 24.0.10", True),
        ("docker version= 24.0.7.0", True),
        ("docker version!= 24", True),
        ("kernel version>= 5.10", True),
        ("kernel version> 5.10.0", False),
        ("beta version< 2.0", True),
        ("beta version> 2.0-beta3", True),
        ("beta version< v2.0.0-rc10", True),
        ("arch version> 0", False),
        ("missing version!= 1", False),
        ("host =~ rack-[0-9]+", True),
        ("host =~ rack-[0-9]", False),
        ("host =~ .*-1[12]", True),
        ("host =~ (?:rack|row)-1\\d", True),
        ("host =~ a,b|rack-12", True),
        ("host =~ 'rack-[0-9]+'", True),
        ('host =~ "rack-[0-9]+", zone = eu-1', True),
        ('host =~ "rack-[0-9]+", zone = eu-2', False),
        ("zone = eu-1, odd =~ 'a, b.*', ssd", True),
        ('quote =~ \\"x.', True),
        ("build version> 20240101120000", True),
        ("build version< 2024010112000", False),
        ("deep version> 1.2.3.4.5.6.6", True),
        ("bytes > 9007199254740992", True),
        ("bytes <= 9007199254740992", False),
        (f"serial > {'1' * 40}", True),
        ("missing =~ .*", False),
        ('odd = "a, b) =~ c"', True),
        ("odd in ('a, b) =~ c', x)", True),
        ("arch = amd64, ssd, !gpu, cores >= 8", True),
        ("arch = amd64, gpu", False),
    ],
)
def test_a_requirement_holds_as_it_reads(text, holds):
    assert all(it.matches(NODE) for it in parse(text)) is holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("a b", "is not a requirement on a label: 'a b'"),
        ("a = ", "has no value after '='"),
        ("a = b c", "is not a requirement"),
        ("= b", "is not a requirement"),
        ("a === b", "is not a requirement"),
        ("a,,b", "is not a requirement on a label: ''"),
        ("a,", "is not a requirement on a label: ''"),
        ("a in ()", "has an empty or malformed list of values"),
        ("a in (b,)", "has an empty or malformed list of values"),
        ("a in (b", "is not a requirement"),
        ("a in b", "is not a requirement"),
        ("a in (" + ",".join(f"v{i}" for i in range(65)) + ")", "lists more than 64 values"),
        ("a > b", "compares with 'b', which is not a number"),
        ("a version> x", "compares with 'x', which is not a version"),
        ("ä = b", "is not a requirement"),
        ("-a", "is not a requirement"),
        ("a" * 1025, "is longer than 1024 characters"),
        ("a =~ ^(a+)+$", "has a pattern that repeats a group"),
        ("a =~ (a|b)*", "has a pattern that repeats a group"),
        ("a =~ (a){9}", "has a pattern that repeats a group"),
        ("a =~ a*a*a*b", "has a pattern that may take too long to match"),
        ("a =~ " + "a?" * 30 + "a" * 30, "has a pattern that may take too long to match"),
        ("a =~ " + "(a|aa)" * 20, "has a pattern that may take too long to match"),
        ("a =~ (b.*|(c|.*d)).*.*", "has a pattern that may take too long to match"),
        ("a =~ b|.*.*.*|c", "has a pattern that may take too long to match"),
        ("a =~ rack-[0-9]+, zone = a", "has a comma in a pattern, where it joins nothing"),
        ("a =~ rack-[0-9]+, ssd", "has a comma in a pattern, where it joins nothing"),
        ("a =~ rack-[0-9]+,!spot", "has a comma in a pattern, where it joins nothing"),
        ("a =~ b,c in (d)", "has a comma in a pattern, where it joins nothing"),
        ("a =~ b,c version>= 1", "has a comma in a pattern, where it joins nothing"),
        ("a =~ 'rack'-[0-9]+", "has a quote in front of a pattern"),
        ("a =~ a{1,99}a{1,99}a{1,99}", "has a pattern that may take too long to match"),
        ("a =~ (a)\\1", "has a pattern with references, look-around or flags"),
        ("a =~ (?=a)b", "has a pattern with references, look-around or flags"),
        ("a =~ (?P<x>a)(?P=x)", "has a pattern with references, look-around or flags"),
        ("a =~ (?i)a", "has a pattern with references, look-around or flags"),
        ("a =~ [", "has a malformed pattern"),
        ("a =~ (", "has a malformed pattern"),
        ("a =~ *", "has a malformed pattern"),
        ("a =~ " + "x" * 129, "has a pattern longer than 128 characters"),
        ("a =~", "is not a requirement"),
    ],
)
def test_what_is_not_a_selector_is_refused_with_a_cure(text, message):
    with pytest.raises(BadSelector) as caught:
        parse(text)
    assert str(caught.value).startswith(message)
    assert caught.value.hint


@pytest.mark.parametrize(
    "pattern",
    [
        *(".*.*", ".*a.*b", "[^x]*[^y]*", "(a|aa)(a|aa).*", "a{1,9}.*", "a+a+b"),
        *(".*.*|.*.*", "|".join("a" * n for n in range(1, 14)), "|".join("ab" * 21)),
    ],
)
def test_every_pattern_that_is_taken_is_quick(pattern):
    [requirement] = parse(f"a =~ {pattern}")
    with pace.within(0.1):
        requirement.matches({"a": "a" * 255 + "!"})


@pytest.mark.parametrize("operator", ["=", "=~", "version="])
def test_every_label_that_a_node_may_have_can_be_asked_for(operator):
    longest = "1" * LONGEST_VALUE
    value = "1{256}" if operator == "=~" else longest
    [requirement] = parse(f"a {operator} {value}")
    assert requirement.matches(labels.given({"a": longest}))
    with pytest.raises(InvalidLabels):
        labels.given({"a": longest + "1"})


def test_values_too_long_for_a_pattern_do_not_match():
    [requirement] = parse("a =~ .*")
    assert not requirement.matches({"a": "x" * 257})


@pytest.mark.parametrize(
    "text",
    [
        *("a = b", "a in (b, c)", "!a", "a", 'a = "b c"', "a = 'x\"y'", "a version>= v1.2"),
        *(
            "a =~ b,c",
            'a =~ "b, c"',
            "a =~ '\"b\", c = d'",
            "a =~ ' b'",
            "a =~ '\"b\"'",
            'a =~ \\"b"\'c',
        ),
    ],
)
def test_the_text_of_a_requirement_means_the_same(text):
    once = parse(text)
    assert parse(", ".join(map(str, once))) == once


def test_a_pattern_that_was_stored_without_quotes_is_still_one():
    assert selectors.read("host =~ a, b = c") == (Requirement("host", "=~", ("a, b = c",)),)


_values = st.text(
    st.characters(codec="utf-8", exclude_characters="\"'", exclude_categories=["Cc"]), min_size=0
)


@given(st.from_regex(selectors.KEY, fullmatch=True), _values)
def test_any_value_can_be_asked_for_in_quotes(key, value):
    if len(key) > 128 or not key.isascii() or len(value) > 256:
        return
    [requirement] = parse(f'{key} = "{value}"')
    assert requirement == Requirement(key, "=", (value,))
    assert parse(str(requirement)) == (requirement,)


@given(st.text(max_size=60) | st.text("ab=~,'\" !<(in)\\", max_size=20).map("a =~ ".__add__))
def test_any_text_is_a_selector_or_refused(text):
    try:
        found = parse(text)
    except BadSelector:
        return
    assert parse(", ".join(map(str, found))) == found
    for requirement in found:
        requirement.matches(NODE)
