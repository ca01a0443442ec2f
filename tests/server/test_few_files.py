"""`manage.py web` where it may open few files, of which each connection is one."""

import os
import resource
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from urllib.parse import quote

import httpx
import pytest
from django.db import connection

from orchestrator.management.commands.web import MOST_FILES
from orchestrator.server.environment import HOME
from tests.served import free_port

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]

FEW = 64


def address_of_the_database() -> str:
    it = connection.settings_dict
    user = quote(it["USER"]) + (f":{quote(it['PASSWORD'])}" if it["PASSWORD"] else "")
    port = f":{it['PORT']}" if it["PORT"] else ""
    return f"postgres://{user}@{quote(it['HOST'], safe='')}{port}/{it['NAME']}"


@pytest.fixture
def web(tmp_path, eventually, transactional_db):
    """Its process, its port and the file of its log."""
    port, log = free_port(), tmp_path / "web.log"
    command = [sys.executable, "manage.py", "web", "--port", str(port)]
    with log.open("wb") as said:
        process = subprocess.Popen(
            ["sh", "-c", f'ulimit -Sn {FEW}; exec "$@"', "sh", *command],
            cwd=HOME,
            env={**os.environ, "DATABASE_URL": address_of_the_database()},
            stderr=said,
        )
    try:
        eventually(lambda: is_healthy(port), within=60)
        yield process, port, log
    finally:
        process.terminate()
        process.wait(20)


def is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_beyond_all_the_files_that_it_may_open_connections_are_refused_with_a_line_until_some_end(
    web, eventually
):
    process, port, log = web
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    assert soft == (MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES))

    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (FEW, FEW))
    with ExitStack() as until_the_end:

        def connected():
            return until_the_end.enter_context(
                closing(socket.create_connection(("127.0.0.1", port)))
            )

        for _ in range(FEW + 30):
            connected()
        eventually(lambda: f"may open no more than {FEW} files; raise the limit" in log.read_text())
        # It may have closed a file of its own since: that is taken, too.
        eventually(lambda: connected() and not is_healthy(port), say="who asks is refused at once")
    eventually(lambda: is_healthy(port))
    said = log.read_text()
    assert "Traceback" not in said
    assert said.count("connections are refused") < 10, "not a line for each"
