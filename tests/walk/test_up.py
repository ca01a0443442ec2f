"""`manage.py up`, for real: from an empty directory to jobs that ran, and back."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from orchestrator import postgres
from orchestrator.environment import HOME

pytestmark = pytest.mark.processes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Up:
    """One `manage.py up`, and what it has said so far."""

    def __init__(self, var: Path, *options: str) -> None:
        self.port = free_port()
        self.here = f"http://127.0.0.1:{self.port}"
        self.output = var / f"up-{self.port}.txt"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "up", "--port", str(self.port), *options],
                cwd=HOME,
                env=environ(var),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.output.read_text()

    def has_said(self, text: str) -> bool:
        assert self.process.poll() is None, self.said()
        return text in self.said()

    def family(self) -> list[psutil.Process]:
        """Everything it started and would end: not the tasks, which outlive it."""
        return psutil.Process(self.process.pid).children()


def environ(var: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return kept | {"MUSTER_VAR": str(var)}


def manage(var: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=HOME,
        env=environ(var),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def var():
    made = Path(tempfile.mkdtemp(prefix="muster-up-"))
    made.chmod(0o755)
    yield made
    end_tasks(made)
    shutil.rmtree(made, ignore_errors=True)


def end_tasks(var: Path) -> None:
    """Kill the tasks that outlived their agents, as they should, and who watches over them."""
    for watcher in psutil.process_iter():
        with suppress(psutil.Error):
            if any(word.startswith(str(var)) for word in watcher.cmdline()):
                for process in (*watcher.children(recursive=True), watcher):
                    process.kill()


@pytest.fixture
def up(var):
    started = []

    def start(*options: str) -> Up:
        started.append(Up(var, *options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGINT)
            one.process.wait(60)


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


def test_killed_in_the_middle_nothing_stays_and_the_job_goes_on(up, var, eventually):
    first = up("--agents", "1")
    eventually(lambda: first.has_said("demo: word-count submitted"), within=60)
    family = first.family()
    first.process.kill()
    first.process.wait()
    eventually(lambda: not any(process.is_running() for process in family), within=30)

    second = up("--agents", "1")
    eventually(lambda: second.has_said("demo: word-count goes on where it stopped"), within=60)
    eventually(lambda: second.has_said("demo: word-count completed"), within=180)


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
