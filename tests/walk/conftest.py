"""`manage.py up` and its database, for real, in a directory of the test's own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from orchestrator.server.environment import HOME
from tests.served import free_port


class Up:
    """One `manage.py up`, and what it has said so far."""

    def __init__(self, var: Path, *options: str, output: Path | None = None) -> None:
        self.port = free_port()
        self.here = f"http://127.0.0.1:{self.port}"
        self.output = output or var / f"up-{self.port}.txt"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "up", "--port", str(self.port), *options],
                cwd=HOME,
                env=environ(var),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0,  # As careless as can be.
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
    for log in sorted([*made.glob("up-*.txt"), *made.glob("log/*.log")]):  # Shown if it failed.
        last = log.read_text(errors="replace").splitlines()[-40:]
        sys.stdout.write("\n".join([f"--- {log.name}", *last, ""]))
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
