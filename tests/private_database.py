"""A database of the test run's own, unless DATABASE_URL names a server to test against.

Loaded with `-p`, before Django's settings are: it says where they will look. The process that was
started first runs one server; the processes that pytest-xdist adds find it through the environment,
and pytest-django gives each of them a database of its own on it.
"""

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

RUNS_HERE = "PYTEST_XDIST_WORKER" not in os.environ

if RUNS_HERE:
    for name in [name for name in os.environ if name.startswith("MUSTER_")]:
        del os.environ[name]  # A developer's own settings are not what is tested.
    os.environ["MUSTER_REQUESTS_PER_SECOND"] = "0"  # Tests are in a hurry.
    os.environ["MUSTER_VAR"] = tempfile.mkdtemp(prefix="muster-test-")
    Path(os.environ["MUSTER_VAR"]).chmod(0o755)  # The server may run as another user.
VAR = Path(os.environ["MUSTER_VAR"])

_until_the_end = ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    if not RUNS_HERE:
        return
    _until_the_end.callback(shutil.rmtree, VAR, ignore_errors=True)
    if "DATABASE_URL" in os.environ or config.option.collectonly:
        return
    from orchestrator.server import postgres

    server = _until_the_end.enter_context(postgres.running(VAR / "postgres", durable=False))
    os.environ["PGPASSFILE"] = str(server.place.passwords)  # For what is started with an address.
    with psycopg.connect(server.place.conninfo(user=postgres.SUPERUSER)) as connection:
        # Tests make databases, and forge rows that triggers refuse.
        connection.execute(f"ALTER ROLE {postgres.OWNER} SUPERUSER")


def pytest_unconfigure() -> None:
    _until_the_end.close()
