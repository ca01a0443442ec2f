"""Amounts, durations and people, as every sentence says them."""

from datetime import datetime, timedelta, timezone

import pytest

from orchestrator.explain import formatting


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0 ms"),
        (0.34, "340 ms"),
        (0.9999, "1.0 s"),
        (4.24, "4.2 s"),
        (59.9, "59 s"),
        (185, "3 min 05 s"),
        (7500, "2 h 05 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds, said):
    assert formatting.duration(seconds) == said


@pytest.mark.parametrize(
    ("dimension", "value", "said"),
    [
        ("cpu", 1000, "1 core"),
        ("cpu", 2500, "2.5 cores"),
        ("cpu", 3990, "3.99 cores"),
        ("memory", 512 * 2**20, "512 MiB"),
        ("memory", 1536 * 2**20, "1.5 GiB"),
        ("cpu", 40, "0.04 cores"),
        ("cpu", 250, "0.25 cores"),
        ("disk", 0, "0 B"),
        ("gpu", 1, "1 GPU"),
        ("gpu", 4, "4 GPUs"),
    ],
)
def test_an_amount_has_its_unit(dimension, value, said):
    assert formatting.amount(dimension, value) == said


def test_a_part_and_its_whole_name_their_unit_once():
    assert formatting.of("cpu", 5800, 16000) == "5.8 of 16 cores"
    assert formatting.of("memory", 2**30, 64 * 2**30) == "1 of 64 GiB"
    assert formatting.of("memory", 2**20, 64 * 2**30) == "1 MiB of 64 GiB"


def test_a_bounded_count_says_that_it_is_bounded():
    assert formatting.capped(9_999, 10_000) == "9,999"
    assert formatting.capped(10_000, 10_000) == "10,000+"


def test_people_are_called_by_their_names():
    assert formatting.person("user:ana") == "ana"
    assert formatting.person("token:ci:nightly") == "ci:nightly"
    assert formatting.person("housekeeping") == "housekeeping"


def test_an_amount_can_say_what_it_is_an_amount_of():
    assert formatting.named("memory", 2**30) == "1 GiB memory"
    assert formatting.named("cpu", 500) == "0.5 cores"
    assert formatting.amounts({"cpu": 2000, "memory": 2**30, "gpu": 0}) == "2 cores, 1 GiB memory"
    assert formatting.amounts({}) == "nothing"


def test_an_instant_is_said_in_universal_time():
    berlin = timezone(timedelta(hours=1))
    at = datetime(2026, 3, 1, 13, 0, 40, tzinfo=berlin)
    assert formatting.clock(at) == "2026-03-01 12:00:40 UTC"


def test_a_sentence_ends_once():
    assert [formatting.full_stop(it) for it in ("", "no room", "gone.")] == [
        "",
        "no room.",
        "gone.",
    ]
