from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from django.contrib.auth.models import User

from orchestrator.access import tokens
from orchestrator.server.environment import HOME
from tests.served import free_port, start

KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT")


@dataclass
class Muster:
    """The command line, run for real, with nothing of our environment."""

    server: str
    token: str
    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        mine = {
            "XDG_CONFIG_HOME": str(self.home),
            "MUSTER_VAR": str(self.home / "var"),
            "PYTHONPATH": str(HOME),
            "MUSTER_SERVER": self.server,
            "MUSTER_TOKEN": self.token,
        }
        given = kept | mine | self.environ | more
        return {name: value for name, value in given.items() if value}

    def __call__(
        self, *words: str, stdin: str | bytes | None = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        text = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            self.command(*words),
            cwd=self.home,
            env=self.environment(**environ),
            input=text,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def start(self, *words: str, **more) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command(*words), cwd=self.home, env=self.environment(), **more)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "orchestrator.cli", *words]

    def file(self, text: str, name: str = "job.yaml") -> str:
        (self.home / name).write_text(text)
        return name


@pytest.fixture(scope="module")
def served(django_db_setup, django_db_blocker) -> Iterator[str]:
    """The address of a real Daphne on the test database."""
    port = free_port()
    process = start("--port", str(port), stderr=subprocess.PIPE)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, process.stderr.read().decode()
            try:
                httpx.get(f"{address}/healthz", timeout=1, trust_env=False)
            except httpx.TransportError:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.1)
            else:
                break
        yield address
    finally:
        process.terminate()
        process.wait(20)
        process.stderr.close()


@pytest.fixture
def muster(served, transactional_db, tmp_path) -> Muster:
    root = User.objects.create_superuser("root")
    secret = tokens.create(user=root, name="t", scopes=["admin"], expires_in=None)
    return Muster(served, secret, tmp_path)
