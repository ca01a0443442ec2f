"""Two web processes, one agent: logs are read through the one that does not hold its session."""

import json
import subprocess
import threading

import httpx
import pytest
from websockets.sync.client import connect

from dashboard.log_streaming import HEADER
from orchestrator.server.environment import HOME
from tests.chaos.cluster import MANAGE, Cluster, until
from tests.served import free_port

pytestmark = pytest.mark.processes

SESSION = """
from django.contrib.auth.models import User; from django.test import Client
client = Client(); client.force_login(User.objects.get())
print(client.cookies["muster_session"].value)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("two"), agents=1, workers=1, durable=False)
    cluster.other = free_port()
    with cluster.running():
        cluster.add("other", "web", "--port", str(cluster.other))
        until(lambda: is_up(cluster.other), say=cluster.said)
        yield cluster


def is_up(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture
def talk(cluster):
    """Have a task print three lines, and one more for each file that is made; its execution."""

    def start(name):
        files = cluster.directory / name
        files.mkdir(mode=0o777)
        wait = f"until [ -e {files}/$it ]; do sleep 0.05; done"
        script = f"printf 'one\\ntwo\\nthree\\n'; for it in four five; do {wait}; echo $it; done"
        task = {"command": ["sh", "-c", script]}
        cluster.client.post("jobs", json={"name": name, "task": task}).raise_for_status()
        query = (
            "SELECT e.id FROM orchestrator_execution e JOIN orchestrator_job j ON j.id = e.job_id"
            " WHERE j.name = %s AND observed = 'running'"
        )
        [[execution]] = until(lambda: cluster.rows(query, name), say=cluster.said)
        until(lambda: read(cluster, execution) == "one\ntwo\nthree\n", say=cluster.said)
        return execution, files

    return start


def read(cluster, execution, **query):
    return cluster.client.get(there(cluster, execution), params=query).text


def there(cluster, execution):
    return f"http://127.0.0.1:{cluster.other}/api/v1/executions/{execution}/logs"


def test_a_log_is_read_through_the_process_that_does_not_hold_the_session(cluster, talk):
    execution, files = talk("talks")
    [[address]] = cluster.rows("SELECT address FROM nodes_nodesession")
    assert address == cluster.here, "the other one has none"
    assert read(cluster, execution, tail=6) == "three\n"
    assert read(cluster, execution, offset=4) == "two\nthree\n"
    job = f"http://127.0.0.1:{cluster.other}/api/v1/jobs/talks/logs"
    assert cluster.client.get(job).text == "0 | one\n0 | two\n0 | three\n"
    with cluster.client.stream("GET", there(cluster, execution), params={"follow": True}) as log:
        lines = log.iter_lines()
        assert [next(lines) for _ in range(3)] == ["one", "two", "three"]
        (files / "four").touch()
        assert next(lines) == "four"
        (files / "five").touch()
        assert list(lines) == ["five"]


def test_a_page_follows_a_log_through_the_process_that_does_not_hold_the_session(cluster, talk):
    execution, files = talk("page")
    command = [*MANAGE, "shell", "-v", "0", "-c", SESSION]
    session = subprocess.run(
        command, cwd=HOME, env=cluster.environ, check=True, capture_output=True, text=True
    )
    here = f"127.0.0.1:{cluster.other}"
    headers = {"Cookie": f"muster_session={session.stdout.strip()}"}
    with connect(
        f"ws://{here}/ws/live/", origin=f"http://{here}", additional_headers=headers
    ) as it:
        ask = {"type": "follow", "id": 1, "execution": str(execution), "stream": "stdout"}
        it.send(json.dumps(ask | {"tail": 10}))
        assert pieces(it, 14) == (14, b"two\nthree\n")
        (files / "four").touch()
        assert pieces(it, 19) == (19, b"four\n")
        (files / "five").touch()
        assert pieces(it, 24) == (24, b"five\n")


def pieces(socket, end):
    """What comes until the place *end* of the log."""
    data, after = b"", 0
    while after < end:
        if isinstance(said := socket.recv(30), bytes):
            _, is_note, after = HEADER.unpack(said[: HEADER.size])
            assert not is_note
            data += said[HEADER.size :]
    return after, data


def test_who_follows_reads_on_when_the_process_that_held_the_session_was_killed(cluster, talk):
    execution, files = talk("killed")
    epoch = cluster.one("SELECT epoch FROM nodes_nodesession")
    found: list[str] = []

    def follow():
        with cluster.client.stream("GET", there(cluster, execution), params={"follow": True}) as it:
            found.extend(it.iter_lines())

    reader = threading.Thread(target=follow)
    with cluster.client.stream("GET", there(cluster, execution), params={"follow": True}) as log:
        lines = log.iter_lines()
        assert [next(lines) for _ in range(3)] == ["one", "two", "three"]
        cluster.parts["web"].kill()
        said = read(cluster, execution)
        assert said == (
            f"[muster: the web process at {cluster.here}, which holds its session, "
            "does not answer, and nothing was kept of what it printed]\n"
        )
        reader.start()  # It begins while nobody holds the session.
        (files / "four").touch()
        cluster.parts["web"].start()
        until(lambda: cluster.one("SELECT epoch FROM nodes_nodesession") > epoch, say=cluster.said)
        assert next(lines) == "four"
        (files / "five").touch()
        assert list(lines) == ["five"]
    reader.join(60)
    assert found == ["one", "two", "three", "four", "five"]


def test_nobody_else_is_passed_a_log(cluster):
    for port in (cluster.port, cluster.other):
        answer = httpx.get(f"http://127.0.0.1:{port}/internal/logs/", trust_env=False)
        assert answer.status_code == 403
