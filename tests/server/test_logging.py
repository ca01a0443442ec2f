"""What our processes say carries no secret."""

import io
import logging

import psycopg
import pytest
from django.db import OperationalError

from orchestrator.server.logging import OneLineASecond, without_secrets

SECRET = "kJ8sdfLKJ23nsdf98xcvKJH234lkjsdf"


@pytest.mark.parametrize(
    "line",
    [
        f"enrolled with jt_17_{SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"authorization: node nt_4_{SECRET}",
        f"postgres://muster:{SECRET}@db/muster",
        f"password={SECRET}",
        f'{{"token": "{SECRET}"}}',
    ],
)
def test_no_secret_is_left_in_a_line(line):
    assert SECRET not in without_secrets(line)


def test_the_id_of_a_token_stays():
    assert without_secrets(f"jt_17_{SECRET}") == "jt_17_…"


def test_an_ordinary_line_stays_as_it_is():
    line = "job word-count completed: 4 of 4 slots, node local-1"
    assert without_secrets(line) == line


@pytest.fixture
def logger():
    """A logger with the filter, its clock and its lines."""
    found, output, clock = logging.getLogger("tests.outages"), io.StringIO(), [0.0]
    handler = logging.StreamHandler(output)
    handler.addFilter(OneLineASecond(lambda: clock[0]))
    found.addHandler(handler)
    found.clock, found.lines = clock, lambda: output.getvalue().splitlines()
    yield found
    found.removeHandler(handler)


def fail(logger: logging.Logger, error: Exception) -> None:
    try:
        raise OperationalError("as Django says it") from error
    except OperationalError:
        logger.exception("a page failed")


def test_an_outage_has_one_line_a_second_and_no_traceback(logger):
    for _ in range(50):
        fail(logger, psycopg.errors.DiskFull("could not extend file"))
    assert logger.lines() == [
        "a page failed: The database has no space left on its disk. as Django says it"
    ]
    logger.clock[0] = 1.1
    fail(logger, psycopg.errors.DiskFull("could not extend file"))
    assert logger.lines()[1].endswith("(49 more like it)")


def test_what_is_no_outage_keeps_its_traceback_and_every_line(logger):
    for _ in range(3):
        fail(logger, psycopg.errors.UndefinedColumn("no such column"))
    assert logger.lines().count("Traceback (most recent call last):") == 3
