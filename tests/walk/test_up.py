"""`manage.py up`, for real: from an empty directory to jobs that ran, and back."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys

import httpx
import pytest

from orchestrator.server import postgres, running_cluster
from orchestrator.server.environment import HOME
from tests.walk.conftest import environ, manage

pytestmark = pytest.mark.processes


def test_from_nothing_to_a_demonstration_that_ends_and_the_same_again(up, var, eventually):
    first = up("--agents", "2")
    eventually(lambda: first.has_said("Muster  "), within=20)
    assert first.said().splitlines()[0] == f"Muster  {first.here}/"
    eventually(lambda: first.has_said("demo: word-count completed"), within=120)
    eventually(lambda: first.has_said("demo: metronome stopped"), within=60)
    assert httpx.get(f"{first.here}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{first.here}/readyz").status_code == 200
    assert re.search(r"Sign in as admin, password \S{12,} ", first.said())

    family = first.family()
    assert len(family) == 5  # The database, web, the workers, two agents.
    first.process.send_signal(signal.SIGINT)
    assert first.process.wait(30) == 0
    assert not any(process.is_running() for process in family)
    assert not postgres.is_running(var / "postgres")

    second = up("--agents", "2")
    eventually(lambda: second.has_said("demo: word-count completed"), within=120)
    assert "(printed this once)" not in second.said()
    count = "from orchestrator.models import ApiToken; print(ApiToken.objects.count())"
    assert manage(var, "shell", "--no-imports", "-c", count).stdout == "2\n", (
        "one of the demonstration, one of the command line"
    )


def test_killed_in_the_middle_nothing_stays_and_the_job_goes_on(up, var, eventually):
    first = up("--agents", "1")
    eventually(lambda: first.has_said("demo: word-count submitted"), within=60)
    family = first.family()
    first.process.kill()
    first.process.wait()
    eventually(lambda: not any(process.is_running() for process in family), within=30)

    second = up("--agents", "1")
    eventually(lambda: second.has_said("demo: word-count goes on where it stopped"), within=60)
    (web,) = [it for it in second.family() if "web" in it.cmdline()]
    web.kill()
    eventually(lambda: second.has_said("demo: word-count completed"), within=180)


SLEEPER = "name: sleeper\ntask: {command: [sleep, '1000']}\n"


def test_what_up_prints_works_and_down_leaves_nothing_behind(up, var, eventually):
    first = up("--agents", "1", "--no-demo")
    eventually(lambda: first.has_said("job logs hello"), within=60)
    commands = first.said().split("Try:\n")[1].splitlines()[:3]
    alone = {"PATH": os.environ["PATH"], "HOME": str(var)}
    said = [shell(command, alone) for command in commands]
    assert [it.returncode for it in said] == [0, 0, 0], said
    assert "takes jobs" in said[0].stdout
    assert "hello is a new job" in said[1].stdout

    eventually(lambda: first.has_said("Tasks are "), within=60)
    assert writable_by_others(var) == []
    muster = commands[0].removesuffix(" status")
    assert shell(f"{muster} job run --wait running -", alone, SLEEPER).returncode == 0
    twice = manage(var, "up", "--port", str(first.port))
    assert f"A cluster runs in {var} already (process {first.process.pid})" in twice.stderr
    first.process.send_signal(signal.SIGINT)
    assert first.process.wait(30) == 0
    assert "One task of sleeper goes on: `make down` stops what runs" in first.said()

    assert manage(var, "down").stdout.startswith("No cluster ran; one task was stopped.\n")
    assert running_cluster.tasks(var / "agents") == []

    second = up("--agents", "1", "--no-demo")
    eventually(lambda: running_cluster.tasks(var / "agents"), within=60)
    assert "The cluster has ended; one task was stopped." in manage(var, "down").stdout
    assert second.process.wait(30) == 0
    assert manage(var, "down").stdout == "No cluster ran; no task was left.\n"


def writable_by_others(var):
    """What anybody may write below *var*, but what the test made itself."""
    found = ((it, it.lstat().st_mode) for it in var.rglob("*") if not it.name.startswith("up-"))
    return [it for it, mode in found if not stat.S_ISLNK(mode) and mode & 0o022]


def shell(command, environ, stdin=""):
    return subprocess.run(
        command,
        shell=True,
        cwd=HOME,
        env=environ,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_busy_port_is_a_sentence_and_a_cure(var):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        answer = manage(var, "up", "--port", str(port))
    assert answer.returncode == 1
    assert f"Something else listens on 127.0.0.1:{port} already." in answer.stderr
    assert re.search(r'make up ARGS="--port \d+"', answer.stderr)
    assert "Traceback" not in answer.stderr


def test_a_misspelt_name_stops_every_command(var):
    answer = subprocess.run(
        [sys.executable, "manage.py", "up"],
        cwd=HOME,
        env=environ(var) | {"MUSTER_HOST": "x"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 78
    assert "MUSTER_HOST means nothing to Muster. Did you mean MUSTER_HOSTS?" in answer.stderr


def test_a_command_alone_has_a_database_for_as_long_as_it_runs(var):
    answer = manage(var, "migrate", "--verbosity", "0")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert manage(var, "migrate", "--check").returncode == 0
    assert not postgres.is_running(var / "postgres")


def test_the_secret_key_is_made_once_and_for_us_only(var):
    show = (
        "shell",
        "--no-imports",
        "-c",
        "from django.conf import settings as s; print(s.SECRET_KEY)",
    )
    keys = {manage(var, *show).stdout for _ in range(2)}
    assert len(keys) == 1
    assert len(keys.pop().strip()) >= 50
    assert (var / "secret_key").stat().st_mode & 0o777 == 0o600


def test_a_process_of_many_does_not_run_the_database_for_the_others(var):
    answer = manage(var, "web")
    assert answer.returncode == 1
    assert "needs a database that runs" in answer.stderr
    assert "make up" in answer.stderr
