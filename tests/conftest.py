"""What every test may ask for."""

import asyncio
import gc
import itertools
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import connection, connections
from django.test import TransactionTestCase
from hypothesis import HealthCheck, settings

from orchestrator.apps import keep_settings
from orchestrator.broker import looking

# A busy machine is no failure of a property.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

pytest_plugins = ["tests.lock_order", "tests.nodes.links"]

# A shell that starts the tests in its background has interruptions ignored, by what they start,
# too; what a process handles itself is not ignored by those that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, CHROMIUMS)), None)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium; a test that asks for it is skipped where none is installed."""
    found = find_chromium()
    if found is None:
        pytest.skip(f"no Chromium is installed (looked for {', '.join(CHROMIUMS)})")
    return found


@pytest.fixture(autouse=True)
def _whole_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, the queue is looked at from its beginning: tests set times."""
    monkeypatch.setattr(looking, "BRISK", float("inf"))


KEPT = {"django_migrations", "django_content_type", "auth_permission"}
"""What no test changes, and costs more to make anew than all the rest."""

LARGE = 1_000_000
"""Bytes of a table."""

# Of what has partitions each holds its own rows.
_ALL = """
    SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    AND NOT relname = ANY(%s)
"""


def _empty_tables(_: TransactionTestCase) -> None:
    """Leave the database as it was made.

    Django's own way, to truncate every table and to make all permissions anew, took as long as
    the tests themselves.
    """
    connection.ensure_connection()
    for attempt in range(5):
        try:
            _empty(connection.connection)
            break
        except psycopg.errors.DeadlockDetected:
            if attempt == 4:
                raise
    keep_settings(apps.get_app_config("orchestrator"), "default")


def _empty(database: psycopg.Connection[Any]) -> None:
    """In no order of locks: a server of the test may still be saying goodbye to a node."""
    with database.transaction():
        database.execute("SET LOCAL session_replication_role = replica")  # No trigger fires.
        # What an upgrade makes of the journal that it finds.
        earlier = "SELECT name FROM orchestrator_event_weeks() WHERE begins IS NULL"
        for (name,) in database.execute(earlier).fetchall():
            database.execute(f"DROP TABLE {name}; SELECT orchestrator_open_event_weeks(5)")
        names = [name for (name,) in database.execute(_ALL, [list(KEPT)])]
        has_rows = " UNION ALL ".join(
            f"(SELECT '{name}', pg_relation_size('{name}') FROM {name} LIMIT 1)" for name in names
        )
        for name, size in database.execute(has_rows).fetchall():
            # What was deleted stays in its file until somebody truncates it.
            verb = f"TRUNCATE {name} CASCADE" if size > LARGE else f"DELETE FROM {name}"
            database.execute(verb)


TransactionTestCase._fixture_teardown = _empty_tables


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Let go of the test database before it is dropped: hints have a connection of their own,
    and what is asked from asyncio that of a thread which outlives its loop.
    """
    from nodes import hints

    yield
    hints.close()
    asyncio.run(sync_to_async(connections.close_all)())
    with django_db_blocker.unblock():
        _wait_until_alone()


def _wait_until_alone() -> None:
    """Those whose processes have just ended take a moment to go; who stays is named.

    The connection of a thread that has ended goes with what its event loop has left.
    """
    connection.close()
    gc.collect()
    deadline = time.monotonic() + 30
    others = """
        SELECT application_name, state, query FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
          AND backend_type = 'client backend'
    """
    while True:
        with connection.cursor() as cursor:
            cursor.execute(others)
            found = cursor.fetchall()
        if not found:
            return
        assert time.monotonic() < deadline, f"still connected: {found}"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def cut_short() -> Callable[..., int]:
    """Have a call fail before each of its statements in turn, until it gets through; how often.

    After each failure the second function must say that nothing has changed.
    """

    def run(call: Callable[[], object], unchanged: Callable[[], bool]) -> int:
        for at in itertools.count():
            seen = itertools.count()

            def cut(execute: Any, *statement: Any) -> Any:
                if next(seen) == at:  # noqa: B023 - used within this round
                    raise CutShort
                return execute(*statement)

            try:
                with connection.execute_wrapper(cut):
                    call()
            except CutShort:
                assert unchanged(), f"cut short before statement {at}, it left something behind"
            else:
                return at
        raise AssertionError

    return run


class CutShort(Exception):
    """The process died here."""


@pytest.fixture
def in_threads() -> Callable[..., list[BaseException]]:
    """Call each function in a thread of its own, with its own connection; the errors raised."""

    def run(*functions: Callable[[], object]) -> list[BaseException]:
        errors: list[BaseException] = []

        def one(function: Callable[[], object]) -> None:
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - the caller asks for it
                errors.append(error)
            finally:
                connections.close_all()

        threads = [Thread(target=one, args=(function,)) for function in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a thread did not end within 30 s"
        return errors

    return run


@pytest.fixture
def eventually() -> Callable[..., object]:
    """Wait until a question has a true answer, and return that answer."""

    def wait(question: Callable[[], object], *, within: float = 20.0, say: str = "") -> object:
        deadline = time.monotonic() + within
        while not (answer := question()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {within:g} s: {say or question}")
            time.sleep(0.02)
        return answer

    return wait
