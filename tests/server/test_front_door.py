"""What every visitor meets first: health, headers, and who may open a socket."""

import asyncio

import pytest
from channels.testing import WebsocketCommunicator
from django.db import connection
from django.db.models.functions import Now
from django.test import Client

from orchestrator.endpoint import health
from orchestrator.models import WorkerProcess


def test_health_asks_nobody():
    assert Client().get("/healthz").json() == {"status": "ok"}


@pytest.mark.django_db
def test_without_a_worker_the_cluster_takes_no_jobs_and_says_why():
    answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["missing"] == "No worker has been heard of lately: manage.py worker."


@pytest.mark.django_db
def test_with_a_worker_it_takes_jobs():
    WorkerProcess.objects.create(name="elsewhere-1", host="elsewhere", pid=1)
    assert Client().get("/readyz").status_code == 200


@pytest.mark.django_db
def test_a_worker_that_fell_silent_does_not_count():
    WorkerProcess.objects.create(
        name="elsewhere-1", host="elsewhere", pid=1, seen_at=Now() - 2 * health.SILENCE
    )
    assert Client().get("/readyz").status_code == 503


@pytest.mark.django_db
def test_the_young_row_of_a_killed_worker_does_not_count():
    import platform

    WorkerProcess.objects.create(name="here-1", host=platform.node(), pid=2**22 + 1)
    assert Client().get("/readyz").status_code == 503


@pytest.mark.django_db
def test_browsers_find_the_icon_where_they_look_for_it():
    found = Client().get("/favicon.ico")
    assert (found.status_code, found["Location"]) == (302, "/static/favicon.svg")


def test_pages_may_load_only_what_is_ours():
    policy = Client().get("/accounts/login/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("host", ["evil.example", "<b>evil", "a..b", "evil.example:1x"])
def test_a_page_for_a_host_we_do_not_answer_to_says_how_we_would(host, caplog):
    answer = Client().get("/accounts/login/", headers={"host": host})
    assert answer.status_code == 400
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert answer["X-Content-Type-Options"] == "nosniff"
    (record,) = [it for it in caplog.records if it.name == "orchestrator.server.middleware"]
    assert not any(it.exc_info for it in caplog.records)
    for said in (answer.content.decode(), record.getMessage()):
        assert repr(host) in said
        assert "MUSTER_HOSTS" in said


def test_the_api_for_a_host_we_do_not_answer_to_is_a_problem():
    answer = Client().get("/api/v1/jobs", headers={"host": "evil.example"})
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    said = answer.json()
    assert said["code"] == "unknown-host"
    assert "'evil.example'" in said["detail"]
    assert "MUSTER_HOSTS" in said["hint"]
    assert answer["X-Request-Id"] == said["request_id"] != ""
    assert answer["Cache-Control"] == "private, no-cache"


@pytest.mark.django_db
def test_the_database_is_fifteen_or_newer():
    connection.ensure_connection()
    assert connection.pg_version >= 150000


def knock(path: str, *headers: tuple[bytes, bytes]) -> bool:
    """Whether the handshake at *path* is accepted."""
    from orchestrator.server.asgi import application

    async def try_it() -> bool:
        visitor = WebsocketCommunicator(application, path, headers=[*headers])
        accepted, _ = await visitor.connect()
        await visitor.disconnect()
        return accepted

    return asyncio.run(try_it())


@pytest.mark.parametrize("path", ["/ws/live/", "/ws/nodes/"])
@pytest.mark.parametrize("origin", [b"https://evil.example", b"null"])
def test_no_socket_opens_for_a_page_that_is_not_ours(path, origin):
    assert not knock(path, (b"host", b"localhost"), (b"origin", origin))


def test_a_live_socket_needs_an_origin():
    assert not knock("/ws/live/", (b"host", b"localhost"))


def test_a_node_is_no_browser():
    assert not knock("/ws/nodes/", (b"host", b"localhost"), (b"origin", b"http://localhost"))
