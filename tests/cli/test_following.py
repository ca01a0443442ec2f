"""What is asked of a server, also while it is away or answers badly for a moment."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestrator.cli.client import Client
from orchestrator.cli.config import Settings
from orchestrator.cli.failures import Code, Failure
from orchestrator.cli.following import Until, follow
from orchestrator.cli.jobs import _follow_all

PROBLEM = {"title": "internal", "detail": "Something went wrong here.", "request_id": "r"}


@pytest.fixture
def served() -> Iterator:
    """Serve the given answers one after the other, the last one again and again."""
    servers = []

    def serve(*answers: tuple[int, dict]) -> Client:
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status, body = left.pop(0) if len(left) > 1 else left[0]
                data = json.dumps(body).encode()
                self.send_response(status)
                kind = "application/json" if status == 200 else "application/problem+json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                """Say nothing."""

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return Client(Settings(f"http://127.0.0.1:{servers[-1].server_port}", None))

    yield serve
    for one in servers:
        one.shutdown()
        one.server_close()


def state(word: str) -> tuple[int, dict]:
    return 200, {"name": "x", "state": word, "sentence": word}


def test_a_timeout_is_said_as_it_was_given(served):
    with served(state("running")) as client, pytest.raises(Failure) as failure:
        follow(client, "x", until=Until.COMPLETED, timeout=0.1999951, said=[].append)
    assert failure.value.sentence == "x is still running after 0.2 s; it goes on."


def test_a_timeout_holds_while_the_server_is_away(served):
    with served(state("running"), (503, PROBLEM)) as client, pytest.raises(Failure) as failure:
        follow(client, "x", until=Until.COMPLETED, timeout=1.5, said=[].append)
    assert failure.value.code is Code.TIMEOUT
    assert failure.value.sentence == (
        "x is still running, as far as is known, after 1.5 s; it goes on."
    )


def test_of_several_jobs_the_last_has_waited_as_long_as_the_first(served):
    answers = state("completed"), state("running")
    jobs = [{"id": "a", "name": "a"}, {"id": "b", "name": "x"}]
    with served(*answers) as client, pytest.raises(Failure) as failure:
        _follow_all(client, jobs, Until.COMPLETED, 0.001, quiet=True)
    assert failure.value.sentence == "x is still running after 0.001 s; it goes on."


def test_one_error_of_the_server_does_not_end_it(served):
    said: list[str] = []
    with served(state("running"), (500, PROBLEM), state("completed")) as client:
        assert follow(client, "x", until=Until.COMPLETED, timeout=None, said=said.append) == 0
    assert len(said) == 2


def test_of_a_list_no_more_is_asked_for_than_is_shown(served):
    page = 200, {"items": [{"id": "a"}, {"id": "b"}], "next_cursor": "c"}
    with served(page, (500, PROBLEM)) as client:
        found = client.items("jobs", most=2)
    assert (len(found), found.are_more) == (2, True)
