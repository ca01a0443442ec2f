"""What a running cluster says and does while its database hangs, is full, or its web dies."""

import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from orchestrator.server import postgres
from orchestrator.server.environment import HOME
from tests.walk.conftest import Up, environ, manage

pytestmark = pytest.mark.processes

LINES = 2000
TALKS = f"""
name: talks
count: 2
task:
  command: [sh, -c, 'i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1));
                     [ $((i % 10)) = 0 ] && sleep 0.04; done']
"""


def ready(up, eventually) -> None:
    eventually(lambda: up.has_said("Ready: it takes jobs."), within=60)


def token(var: Path) -> str:
    made = manage(var, "token", "create", "--user", "admin", "--name", "t", "--scope", "admin")
    return next(word for word in made.stdout.split() if word.startswith("at_"))


def muster(up, secret: str, *words: str, **more) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", *words],
        cwd=HOME,
        env=environ(up.output.parent) | {"MUSTER_SERVER": up.here, "MUSTER_TOKEN": secret},
        **more,
    )


def server_of(var: Path) -> list[psutil.Process]:
    """The database's processes, its own first."""
    trace = postgres.place(var / "postgres").data / "postmaster.pid"
    first = psutil.Process(int(trace.read_text().split("\n", 1)[0]))
    return [first, *first.children()]


def test_a_followed_log_loses_no_line_and_doubles_none_when_web_is_killed(
    up, var, tmp_path, eventually
):
    one = up("--agents", "1", "--no-demo")
    ready(one, eventually)
    secret = token(var)
    (tmp_path / "talks.yaml").write_text(TALKS)
    assert muster(one, secret, "job", "run", str(tmp_path / "talks.yaml")).wait(30) == 0
    printed, said = tmp_path / "printed", tmp_path / "said"
    with printed.open("wb") as out, said.open("wb") as err:
        reader = muster(one, secret, "job", "logs", "-f", "talks", stdout=out, stderr=err)
    eventually(lambda: printed.stat().st_size > 2000, within=60)
    (web,) = [it for it in one.family() if "web" in it.cmdline()]
    web.kill()
    assert reader.wait(120) == 0
    counted = Counter(printed.read_text().splitlines())
    assert counted == Counter(f"{slot} | line {n}" for slot in (0, 1) for n in range(LINES))
    assert said.read_text().count("the log goes on where it broke off") == 1


def test_while_the_database_hangs_all_say_so_and_afterwards_all_goes_on(up, var, eventually):
    one = up("--agents", "0", "--no-demo")
    ready(one, eventually)
    bearer = {"Authorization": f"Bearer {token(var)}"}
    with httpx.Client(base_url=one.here, timeout=30, trust_env=False) as web:
        assert web.get("/api/v1/jobs", headers=bearer).status_code == 200
        stopped = server_of(var)
        for process in stopped:
            process.suspend()
        try:
            refused = web.get("/api/v1/jobs", headers=bearer)
            assert (refused.status_code, refused.json()["code"]) == (503, "database-silent")
            assert refused.headers["Retry-After"]
            eventually(lambda: web.get("/readyz").status_code == 503)
            assert web.get("/readyz").json()["missing"] == "The database does not answer."
            page = web.get("/accounts/login/")
            assert (page.status_code, "The database does not answer." in page.text) == (503, True)
        finally:
            for process in stopped:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
        eventually(lambda: web.get("/readyz").status_code == 200)
        assert web.get("/api/v1/jobs", headers=bearer).status_code == 200
    log = (var / "log" / "web.log").read_text()
    assert "The database does not answer." in log
    assert "Traceback" not in log


@pytest.fixture
def small_disk():
    """A directory on a disk of 160 MB."""
    made = Path(tempfile.mkdtemp(prefix="muster-small-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m,mode=755", "tmpfs", made],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        made.rmdir()
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield made
    subprocess.run(["umount", "--lazy", made], check=True)
    made.rmdir()


def fill(disk: Path) -> Path:
    """A file that leaves no room on *disk*."""
    filler = disk / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    return filler


def readiness(up: Up) -> dict[str, str]:
    return httpx.get(f"{up.here}/readyz", timeout=30, trust_env=False).json()


def need_room(var: Path) -> None:
    """Have the database write ahead until it needs a new file for that."""
    with suppress(psycopg.Error):
        as_superuser = postgres.place(var / "postgres").conninfo(user=postgres.SUPERUSER)
        with psycopg.connect(as_superuser, autocommit=True) as it:
            for _ in range(4):
                it.execute("SELECT pg_logical_emit_message(true, 'x', repeat('x', 1000000))")
                it.execute("SELECT pg_switch_wal()")


def test_a_full_disk_is_named_and_all_goes_on_by_itself_when_there_is_room(
    small_disk, tmp_path, eventually
):
    var = small_disk
    one = Up(var, "--agents", "0", "--no-demo", output=tmp_path / "said.txt")
    try:
        ready(one, eventually)
        before = postgres.place(var / "postgres").log.read_text()
        filler = fill(var)
        need_room(var)
        eventually(lambda: one.has_said("There is no space left on the disk"), within=60)
        eventually(lambda: readiness(one).get("code") == "database-full")
        eventually(lambda: one.said().count("The database is started again in") >= 2, within=60)
        filler.unlink()
        eventually(lambda: one.has_said("The database runs again."), within=60)
        eventually(lambda: readiness(one)["status"] == "ready", within=60)
        assert postgres.place(var / "postgres").log.read_text().startswith(before)
    finally:
        one.process.send_signal(signal.SIGINT)
        one.process.wait(60)
