"""What no bad input may do: change a row, take a second, leave a traceback, keep memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import connection

from tests import pace

#: What signing in and being heard of writes, whatever is asked for.
PASSING = {"ApiToken", "FailedSignIns", "Session", "User", "NodeSession", "NodeHeartbeat"}
PASSING |= {"NodeOrders"}
LONGEST = 1.0


def counted() -> dict[str, object]:
    """How many rows each table has, and what its newest ones have been through."""
    models = [it for it in apps.get_models() if it.__name__ not in PASSING]
    sums = [
        f"SELECT '{it.__name__}', count(*), md5(string_agg(t::text, '|' ORDER BY t::text))"
        f' FROM "{it._meta.db_table}" AS t'
        for it in models
    ]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(sums))
        return {name: (count, digest) for name, count, digest in cursor.fetchall()}


@contextmanager
def harmless(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[str], Any]]:
    """Fail if what is done meanwhile changes a row or is logged as our mistake.

    What is given is to be around each single input: one that takes too long fails by its name.
    """
    before = counted()
    yield each
    assert counted() == before
    bad = [it for it in caplog.records if it.levelno >= logging.ERROR or it.exc_info]
    assert not bad, [it.getMessage() for it in bad]


@contextmanager
def each(what: str) -> Iterator[None]:
    """Fail, naming *what* was done, if something about it does, or it takes too long."""
    begun = time.monotonic()
    try:
        with pace.within(LONGEST, what):
            yield
    except AssertionError as error:
        error.add_note(f"{what}")
        raise
    # A machine that does much else is no failure of what was asked for.
    took = time.monotonic() - begun
    assert took < 10 * LONGEST, f"{what} took {took:.1f} s"


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
