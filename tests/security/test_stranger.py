"""Somebody without an account: at the sockets, at the headers, at the database, at the settings."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import psycopg
import pytest
from channels.testing import WebsocketCommunicator

from orchestrator.server import postgres
from orchestrator.server.environment import HOME, LOOPBACK
from tests import served

NOBODY = 65534


# --- sockets -------------------------------------------------------------------------------------


def knock(path: str, **headers: str) -> bool:
    """Whether the handshake at *path* is accepted."""
    from orchestrator.server.asgi import application

    async def try_it() -> bool:
        said = [(name.encode(), value.encode()) for name, value in headers.items()]
        visitor = WebsocketCommunicator(application, path, headers=said)
        accepted, _ = await visitor.connect()
        await visitor.disconnect()
        return accepted

    return asyncio.run(try_it())


@pytest.fixture
def origin_counts():
    """Whether a page of *origin* is one of ours; who signs in is asked later."""
    from orchestrator.server import asgi

    async def welcome(scope, receive, send):
        await send({"type": "websocket.accept"})

    def ask(host: str, *origins: str) -> bool:
        async def try_it() -> bool:
            said = [(b"host", host.encode()), *((b"origin", it.encode()) for it in origins)]
            visitor = WebsocketCommunicator(asgi.for_our_pages(welcome), "/ws/live/", headers=said)
            accepted, _ = await visitor.connect()
            return accepted

        return asyncio.run(try_it())

    return ask


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("127.0.0.1:8000", "HTTP://127.0.0.1:8000"),
    ],
)
def test_a_page_opens_the_socket_of_its_own_address(origin_counts, host, origin):
    assert origin_counts(host, origin)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:9000"),
        ("localhost:8000", "https://localhost:8000"),
        ("localhost:8000", "http://localhost"),
        ("localhost:8000", "http://127.0.0.1:8000"),
        ("localhost:8000", "http://evil.example"),
        ("evil.example", "http://evil.example"),
        ("localhost", "null"),
        ("localhost", "http://localhost/"),
        ("localhost", "http://user@localhost"),
        ("localhost", "http://localhost:99999"),
        ("localhost", "ftp://localhost"),
        ("localhost", ""),
        ("", "http://"),
    ],
)
def test_another_scheme_host_or_port_is_another_page(origin_counts, host, origin):
    assert not origin_counts(host, origin)


@pytest.mark.parametrize("allowed", [["*"], [".example"]])
def test_hosts_that_are_many_allow_no_foreign_origin(origin_counts, settings, allowed):
    settings.ALLOWED_HOSTS = allowed
    assert origin_counts("muster.example", "http://muster.example")
    assert not origin_counts("muster.example", "http://evil.example")


def test_behind_https_a_page_is_of_https(origin_counts, settings):
    settings.HTTPS, settings.ALLOWED_HOSTS = True, [*LOOPBACK, "muster.example"]
    assert origin_counts("muster.example", "https://muster.example")
    assert not origin_counts("muster.example", "http://muster.example")


def test_an_origin_that_is_named_is_ours_and_its_neighbours_are_not(origin_counts, settings):
    settings.CSRF_TRUSTED_ORIGINS = ["https://muster.example"]
    assert origin_counts("localhost:8000", "https://muster.example")
    assert not origin_counts("localhost:8000", "https://muster.example:8443")
    assert not origin_counts("localhost:8000", "https://sub.muster.example")


def test_two_origins_are_none(origin_counts):
    assert not origin_counts("localhost", "http://localhost", "http://localhost")


@pytest.mark.django_db  # Who answers looks whether a connection of his thread is still good.
@pytest.mark.parametrize("path", ["/ws/", "/ws/live", "/ws/live/x/", "/nowhere", "/ws/nodes"])
def test_a_socket_that_there_is_not_is_closed_and_no_error(path):
    assert not knock(path, host="localhost", origin="http://localhost")


# --- headers -------------------------------------------------------------------------------------


@pytest.fixture
def web(transactional_db, eventually):
    port = served.free_port()
    process = served.start("--bind", "127.0.0.1", "--port", str(port))
    here = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        try:
            return httpx.get(f"{here}/healthz", trust_env=False).is_success
        except httpx.TransportError:
            return False

    try:
        eventually(is_up, within=60)
        yield here
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.processes
def test_nobody_moves_our_addresses_by_a_header_and_an_unknown_socket_is_forbidden(web):
    asked = {"Daphne-Root-Path": "/evil.example"}
    answer = httpx.get(f"{web}/", headers=asked, trust_env=False)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/accounts/login/?next=/")
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
    }
    assert httpx.get(f"{web}/ws/none/", headers=upgrade, trust_env=False).status_code == 403


# --- the database --------------------------------------------------------------------------------


@pytest.fixture
def database():
    made = Path(tempfile.mkdtemp(prefix="muster-pg-"))
    made.chmod(0o755)
    with postgres.running(made / "postgres", durable=False) as server:
        yield server.place
    shutil.rmtree(made)


@pytest.mark.processes
@pytest.mark.parametrize("role", [postgres.SUPERUSER, postgres.OWNER, postgres.APPLICATION])
def test_whoever_reaches_the_socket_needs_a_password(database, role):
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(database.conninfo(user=role), passfile="/dev/null")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(database.conninfo(user=role), password="muster")


@pytest.mark.processes
def test_another_user_reaches_neither_the_socket_nor_the_passwords(database):
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    tried = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    for code, path in (
        (tried, database.sockets / postgres.SOCKET),
        ("import sys; open(sys.argv[1])", database.passwords),
        ("import sys; open(sys.argv[1])", database.log),
        ("import os, sys; os.listdir(sys.argv[1])", database.data),
    ):
        drop = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        done = subprocess.run(
            [*drop, "/usr/bin/python3", "-c", code, str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "PermissionError" in done.stderr, path


# --- the settings --------------------------------------------------------------------------------


def manage(var: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {"PATH": os.environ["PATH"], "MUSTER_VAR": str(var), **environ}
    command = [sys.executable, "manage.py", *words]
    return subprocess.run(command, cwd=HOME, env=kept, capture_output=True, text=True, check=False)


@pytest.mark.processes
def test_settings_that_are_weak_are_refused_all_at_once(tmp_path):
    done = manage(
        tmp_path,
        "web",
        MUSTER_DEBUG="1",
        MUSTER_HOSTS="*,muster.example.org",
        MUSTER_SECRET_KEY="a" * 60,
        DATABASE_URL="postgres://u@127.0.0.1/d",
    )
    assert done.returncode == 78
    told = done.stderr.splitlines()
    assert [line.split()[0] for line in told[1:]] == [
        "MUSTER_HOSTS",
        "MUSTER_DEBUG",
        "MUSTER_SECRET_KEY",
    ]


@pytest.mark.processes
def test_a_kept_key_that_was_cut_short_is_refused_and_named(tmp_path):
    (tmp_path / "secret_key").write_text("")
    done = manage(tmp_path, "web")
    assert done.returncode == 78
    assert f"the key in {tmp_path}/secret_key has 0 characters" in done.stderr


@pytest.mark.processes
def test_debug_pages_are_shown_on_this_machine_only(tmp_path):
    to_nowhere = {"DATABASE_URL": "postgres://u@127.0.0.1:1/d"}
    done = manage(tmp_path, "web", "--host", "0.0.0.0", MUSTER_DEBUG="1", **to_nowhere)
    assert (done.returncode, "debug at 127.0.0.1" in done.stderr) == (78, True)


@pytest.mark.processes
def test_behind_https_django_has_nothing_to_say_against_the_deployment(tmp_path):
    to_nowhere = {"DATABASE_URL": "postgres://u@127.0.0.1:1/d"}
    words = ("check", "--deploy", "--fail-level", "WARNING")
    done = manage(tmp_path, *words, MUSTER_HTTPS="1", **to_nowhere)
    assert (done.returncode, done.stderr) == (0, "")


BEHIND_HTTPS = """
from django.test import Client
visitor = Client(headers={"host": "localhost"})
plain = visitor.get("/jobs/?a=b")
print(plain.status_code, plain["Location"])
print(*(visitor.get(path).status_code for path in ("/healthz", "/api/v1/jobs")))
page = visitor.get("/accounts/login/", secure=True)
(cookie,) = page.cookies.values()
print(cookie.key, cookie["secure"], cookie["path"], cookie["domain"] or "-")
print(page["Strict-Transport-Security"])
from django.conf import settings
print(settings.SESSION_COOKIE_NAME, settings.SESSION_COOKIE_SECURE)
stranger = Client(headers={"host": "evil.example"}).get("/jobs/")
print(stranger.status_code, stranger["X-Content-Type-Options"])
"""


@pytest.mark.processes
def test_behind_https_pages_come_by_https_and_cookies_are_of_this_host(tmp_path):
    to_nowhere = {"DATABASE_URL": "postgres://u@127.0.0.1:1/d"}
    done = manage(
        tmp_path, "shell", "--no-imports", "-c", BEHIND_HTTPS, MUSTER_HTTPS="1", **to_nowhere
    )
    assert done.stdout.splitlines() == [
        "301 https://localhost/jobs/?a=b",
        "200 401",
        "__Host-csrftoken True / -",
        "max-age=2592000",
        "__Host-muster_session True",
        "400 nosniff",
    ], done.stderr
