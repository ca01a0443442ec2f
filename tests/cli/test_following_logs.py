"""What is followed over a connection that breaks, or that falls silent without breaking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.cli.client import Client
from orchestrator.cli.config import Settings
from orchestrator.cli.failures import Failure, Unreachable
from orchestrator.cli.following import repeated
from orchestrator.cli.logs import of_execution, of_job, print_both, print_log
from orchestrator.server.environment import HOME

END = {"end": True}


def record(data: bytes, after: int, execution: str = "e1") -> dict[str, object]:
    return {"execution": execution, "data": b64encode(data).decode(), "after": after}


class Server(ThreadingHTTPServer):
    """Answers the n-th request by the n-th list of records; the rest of a list is silence."""

    daemon_threads = True

    def __init__(self, *answers: list[object]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = iter(answers)
        self.asked: list[dict[str, str]] = []
        self.one_by_one = threading.Lock()
        self.over = threading.Event()


HANG, CUT = "hang", "cut"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        with self.server.one_by_one:
            self.server.asked.append({name: values[0] for name, values in query.items()})
            answer = next(self.server.answers)
        self.send_response(200)
        self.end_headers()
        for told in answer:
            if told == HANG:
                self.server.over.wait()
            elif told == CUT:
                self.wfile.write(b'{"execution":"e1","after":99,"da')
            else:
                self.wfile.write(json.dumps(told).encode() + b"\n")
            self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Keep the output of the test its own."""


@pytest.fixture
def serve():
    servers = []

    def start(*answers):
        server = Server(*answers)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host, port = server.server_address
        return server, Client(Settings(f"http://{host}:{port}", None), silent_after=0.5)

    yield start
    for server in servers:
        server.over.set()
        server.shutdown()
        server.server_close()


def test_a_log_goes_on_from_the_next_byte_when_the_connection_breaks(serve, capfdbinary):
    server, client = serve(
        [{}, record(b"one\n", 4), record(b"two\n", 8), CUT], [record(b"three\n", 14), END]
    )
    print_log(client, "executions/e1/logs", of_execution({"tail": 10, "follow": True}))
    said = capfdbinary.readouterr()
    assert said.out == b"one\ntwo\nthree\n"
    assert said.err.count(b"the log goes on where it broke off") == 1
    assert server.asked == [
        {"tail": "10", "follow": "true"},
        {"follow": "true", "offset": "8"},
    ]


def test_a_silent_connection_is_given_up_and_the_log_goes_on(serve, capfdbinary):
    server, client = serve([record(b"one\n", 4), HANG], [record(b"two\n", 8), END])
    print_log(client, "executions/e1/logs", of_execution({"follow": True}))
    assert capfdbinary.readouterr().out == b"one\ntwo\n"
    assert server.asked[1]["offset"] == "4"


def test_each_execution_of_a_job_goes_on_at_its_own_place(serve, capfdbinary):
    server, client = serve(
        [record(b"0 | a\n", 2, "e1"), record(b"1 | b\n", 7, "e2"), record(b"0 | c\n", 4, "e1")],
        [END],
    )
    print_log(client, "jobs/j/logs", of_job({"follow": True}))
    assert capfdbinary.readouterr().out == b"0 | a\n1 | b\n0 | c\n"
    assert server.asked == [{"follow": "true"}, {"follow": "true", "after": "e1:4,e2:7"}]


def test_notes_about_a_log_are_printed_beside_it(serve, capfdbinary):
    note = record(b"[muster: 3 bytes not kept any longer]\n", 3) | {"note": True}
    _, client = serve([note, record(b"four\n", 8), END])
    print_log(client, "executions/e1/logs", of_execution({}))
    said = capfdbinary.readouterr()
    assert said == (b"four\n", b"[muster: 3 bytes not kept any longer]\n")


def test_a_log_of_too_many_executions_to_go_on_says_so(serve):
    many = [record(b"line\n", 5, f"e{number}") for number in range(151)]
    _, client = serve([*many, CUT])
    with pytest.raises(Failure, match="more than 150 executions"):
        print_log(client, "jobs/j/logs", of_job({"follow": True}))


def test_both_streams_of_a_job_are_followed_at_once(serve, capfdbinary):
    server, client = serve([record(b"0 | out\n", 4), END], [record(b"0 | a | b\n", 4), END])
    print_both(client, "jobs/j/logs", {"follow": True})
    asked = [it["stream"] for it in server.asked]
    lines = {b"0 | out", b"0 ! a | b"} if asked[0] == "stdout" else {b"0 ! out", b"0 | a | b"}
    assert set(capfdbinary.readouterr().out.splitlines()) == lines
    assert sorted(asked) == ["stderr", "stdout"]


def test_both_streams_of_a_job_end_when_one_cannot_be_read(serve):
    many = [record(b"line\n", 5, f"e{number}") for number in range(151)]
    _, client = serve([*many, CUT], [HANG])
    with pytest.raises(Failure, match="more than 150 executions"):
        print_both(client, "jobs/j/logs", {"follow": True})


def test_what_is_so_of_both_streams_is_told_once(serve, capfdbinary):
    note = record(b"[muster: it never ran]\n", 0) | {"note": True}
    _, client = serve([note, END], [note, record(b"0 | x\n", 6), END])
    print_both(client, "executions/e1/logs", {}, of_execution)
    assert capfdbinary.readouterr() == (b"", b"[muster: it never ran]\n0 | x\n")


def test_what_is_so_of_one_stream_twice_is_told_twice(serve, capfdbinary):
    note = record(b"[muster: 3 bytes not kept any longer]\n", 3) | {"note": True}
    _, client = serve([note, END], [note, note, END])
    print_both(client, "executions/e1/logs", {}, of_execution)
    assert capfdbinary.readouterr().err.count(b"[muster: ") == 2


def test_who_closes_standard_error_has_seen_enough(serve):
    server, _ = serve([END], [record(b"x\n", 2), END])
    reading, writing = os.pipe()
    os.close(reading)
    words = ("--server", f"http://127.0.0.1:{server.server_port}", "execution", "logs", "e1")
    with os.fdopen(writing) as closed:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *words],
            env={"MUSTER_TOKEN": "at_x", "PYTHONPATH": str(HOME)},
            stderr=closed,
            check=False,
        )
    assert done.returncode == 0


def test_a_server_that_was_never_there_is_told_at_once(serve):
    with pytest.raises(Unreachable, match="does not answer"):
        print_log(Client(Settings("http://127.0.0.1:9", None)), "jobs/j/logs", of_job({}))


def test_a_server_that_takes_its_time_is_named_while_it_is_waited_for(serve, capfd, eventually):
    server, _ = serve([HANG])
    slow = Client(
        Settings(f"http://127.0.0.1:{server.server_port}", None), timeout=5, say_after=0.01
    )
    asking = threading.Thread(target=pytest.raises, args=(Failure, slow.get, "jobs"))
    asking.start()
    said = ""

    def heard():
        nonlocal said
        said += capfd.readouterr().err
        return f"muster: waiting for {slow.server}" in said

    eventually(heard)
    server.over.set()
    asking.join()


def test_what_is_watched_is_looked_at_again_when_the_server_was_away(capfd):
    away = Unreachable("The database does not answer.")
    rounds = iter([None, away, away, None, KeyboardInterrupt()])

    def show():
        if failure := next(rounds):
            raise failure

    with pytest.raises(KeyboardInterrupt):
        repeated(show, 0)
    assert capfd.readouterr().err == "muster: waiting: The database does not answer.\n"


def test_a_server_that_is_away_from_the_first_is_not_waited_for():
    def show():
        raise Unreachable("Nobody listens there.")

    with pytest.raises(Unreachable):
        repeated(show, 0)
