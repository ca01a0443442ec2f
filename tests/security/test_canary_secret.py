"""One secret through a whole cluster of real processes: it is in its task, and nowhere else."""

import contextlib
import subprocess

import httpx
import pytest

from orchestrator.server.environment import HOME
from tests.chaos.cluster import MANAGE, Cluster, until

pytestmark = pytest.mark.processes

CANARY = "canary-4c1f7e90d2b846aa"
SESSION = """
from django.contrib.auth.models import User; from django.test import Client
client = Client(); client.force_login(User.objects.get())
print(client.cookies["muster_session"].value)
"""
SCRIPT = f'echo "<$TOKEN>"; echo "$TOKEN" >&2; test "$TOKEN" = "{CANARY[:6]}"{CANARY[6:]}'


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    directory = tmp_path_factory.mktemp("canary")
    made = Cluster(
        directory, agents=1, workers=1, durable=False, environ={"MUSTER_LOG_LEVEL": "debug"}
    )
    with made.running():
        yield made


@pytest.fixture(scope="module")
def browser(cluster):
    made = subprocess.run(
        [*MANAGE, "shell", "--no-imports", "-c", SESSION],
        cwd=HOME,
        env=cluster.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    cookies = {"muster_session": made.stdout.strip()}
    with httpx.Client(base_url=cluster.here, cookies=cookies, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def ended(cluster):
    """The id of an execution that had the secret and printed it, and that is over."""
    put = cluster.client.put("secrets/token", json={"value": CANARY})
    assert put.status_code == 201, put.text
    # The script names the value in two parts, so that only what carries it whole is found.
    task = {"command": ["sh", "-c", SCRIPT], "env": {"TOKEN": "secret://token"}}
    cluster.client.post("jobs", json={"name": "leaks", "task": task}).raise_for_status()
    state = "SELECT state FROM orchestrator_job WHERE name = 'leaks' AND ended_at IS NOT NULL"
    [[found]] = until(lambda: cluster.rows(state), say=cluster.said)
    assert found == "completed", "the task had the value"
    [[execution]] = cluster.rows("SELECT id FROM orchestrator_execution")
    return execution


def test_what_is_printed_of_it_is_masked(cluster, ended):
    log = cluster.client.get(f"executions/{ended}/logs").text
    assert log == "<***>\n"
    assert cluster.client.get(f"executions/{ended}/logs?stream=stderr").text == "***\n"


def test_no_table_has_it(cluster, ended):
    names = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"
    tables = [name for (name,) in cluster.rows(names)]
    assert "orchestrator_secret" in tables
    for table in tables:
        rows = cluster.rows(f"SELECT t::text FROM {table} t")
        assert not [row for (row,) in rows if CANARY in row], table


def test_no_answer_of_the_api_has_it(cluster, ended):
    addresses = (
        *("jobs", "jobs/leaks", "jobs/leaks/versions", "jobs/leaks/executions", "jobs/leaks/logs"),
        *("jobs/leaks/evaluations", "executions", f"executions/{ended}", "secrets", "nodes"),
        *("events?last=500", "status", "queue", "evaluations", "nodes/agent-1"),
    )
    for address in addresses:
        answer = cluster.client.get(address)
        assert (answer.status_code, CANARY in answer.text) == (200, False), address


def test_no_page_has_it(browser, ended):
    pages = ("/", "/jobs/", "/jobs/leaks/", "/jobs/leaks/definition/", f"/executions/{ended}/")
    for page in (*pages, "/secrets/", "/nodes/", "/nodes/agent-1/", "/queue/"):
        answer = browser.get(page)
        assert (answer.status_code, CANARY in answer.text) == (200, False), page
    tables = ("job", "jobversion", "execution", "event", "evaluation")
    for table in tables:
        answer = browser.get(f"/admin/orchestrator/{table}/")
        assert (answer.status_code, CANARY in answer.text) == (200, False), table


def test_no_file_of_the_cluster_has_it(cluster, ended):
    """Logs on debug, the agent's state directory, the files of the database."""
    having = []
    for path in cluster.directory.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and CANARY.encode() in path.read_bytes():
                having.append(path)
    assert having == []
    assert (cluster.directory / "secrets_key").stat().st_mode & 0o777 == 0o600
