"""Timestamps from the database."""

from datetime import UTC, datetime

import pytest
from django.db import connection

from orchestrator.server.timestamps import TimestampLoader

pytestmark = pytest.mark.django_db


def loaded(text):
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::timestamptz", [text])
        return cursor.fetchone()[0]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("2026-11-30 17:00:00.1+00", (2026, 11, 30, 17, 0, 0, 100_000)),
        ("2026-11-30 17:00:00.123456+00", (2026, 11, 30, 17, 0, 0, 123_456)),
        ("2026-11-30 17:00:00+00", (2026, 11, 30, 17)),
        ("2026-11-30 17:00:00+02", (2026, 11, 30, 15)),
        ("0001-01-01 00:00:00+00", (1, 1, 1)),
        ("9999-12-31 23:59:59.999999+00", (9999, 12, 31, 23, 59, 59, 999_999)),
    ],
)
def test_an_instant_is_exact_and_in_utc(text, parts):
    found = loaded(text)
    assert found == datetime(*parts, tzinfo=UTC)
    assert found.tzinfo is UTC


def test_what_is_no_instant_of_python_is_an_error_of_the_database():
    with pytest.raises(Exception, match="infinity"):
        loaded("infinity")


def test_every_connection_reads_them_so():
    loaded("2026-11-30")
    found = connection.connection.adapters.get_loader(1184, 0)
    assert issubclass(found, TimestampLoader)
