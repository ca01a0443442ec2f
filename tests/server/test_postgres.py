"""The embedded PostgreSQL, with real servers."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
import pytest

from orchestrator.server import child_processes, postgres
from orchestrator.server.environment import HOME

pytestmark = pytest.mark.processes

SUPERVISOR = """
import sys
from pathlib import Path
from orchestrator.server import child_processes, postgres
from orchestrator.server.environment import HOME
with postgres.running(Path(sys.argv[1])):
    print("running", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def directory():
    # Not pytest's own: its parents are closed to the user that the server runs as.
    made = Path(tempfile.mkdtemp(prefix="muster-pg-"))
    made.chmod(0o755)
    yield made / "postgres"
    shutil.rmtree(made)


@pytest.fixture
def supervisor(directory):
    """Another process that runs the server of *directory*."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=HOME,
    )
    assert process.stdout.readline() == b"running\n"
    yield process
    process.stdin.close()
    process.wait(30)
    process.stdout.close()


def server_of(directory: Path) -> psutil.Process:
    pid = (postgres.place(directory).data / "postmaster.pid").read_text().split("\n", 1)[0]
    return psutil.Process(int(pid))


def ask(directory: Path, question: str) -> object:
    with psycopg.connect(postgres.place(directory).conninfo()) as connection:
        return connection.execute(question).fetchone()[0]


def write(directory: Path) -> None:
    with psycopg.connect(postgres.place(directory).conninfo()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS it")


def test_commits_are_durable_and_text_is_utf8_whatever_the_machine_speaks(directory):
    with postgres.running(directory):
        assert ask(directory, "SHOW fsync") == "on"
        assert ask(directory, "SHOW synchronous_commit") == "on"
        assert ask(directory, "SHOW server_encoding") == "UTF8"
        assert ask(directory, "SHOW listen_addresses") == ""
    assert not postgres.is_running(directory)


def test_what_was_written_is_there_at_the_next_start(directory):
    with postgres.running(directory):
        write(directory)
    with postgres.running(directory):
        assert ask(directory, "SELECT it FROM kept") == 7


def test_a_second_supervisor_is_told_who_the_first_is(directory, supervisor):
    with pytest.raises(postgres.Taken, match=f"process {supervisor.pid}"):
        with postgres.running(directory):
            pass


def test_others_use_the_server_that_runs(directory, supervisor):
    with postgres.available(directory):
        assert ask(directory, "SELECT 1") == 1
    assert postgres.is_running(directory)


def test_without_one_a_server_runs_for_as_long_as_it_is_needed(directory):
    with postgres.available(directory):
        assert ask(directory, "SELECT 1") == 1
    assert not postgres.is_running(directory)


def test_the_server_ends_with_a_supervisor_that_is_killed(directory, supervisor):
    write(directory)
    server = server_of(directory)
    supervisor.kill()
    server.wait(20)
    with postgres.running(directory):
        assert ask(directory, "SELECT it FROM kept") == 7


def test_a_server_left_behind_is_replaced(directory, supervisor):
    """As where the kernel sends no signal: the supervisor goes, the server stays for a while."""
    server = server_of(directory)
    server.suspend()
    supervisor.kill()
    supervisor.wait()
    server.resume()
    with postgres.running(directory):
        assert server_of(directory).pid != server.pid


def test_a_server_left_behind_below_a_symbolic_link_is_ended_too(directory):
    """A second one beside it, on the same files, would ruin them."""
    link = directory.parent / "link"
    (directory.parent / "real").mkdir()
    link.symlink_to(directory.parent / "real")
    with postgres.running(link / "postgres", durable=False) as first:
        second = postgres.Server(replace(first.place, home=link / "postgres"), durable=False)
        second.start()
        try:
            assert first.process.poll() is not None
            assert ask(link / "postgres", "SELECT 1") == 1
        finally:
            second.stop()


def test_one_directory_is_one_place_whatever_links_lead_there(directory):
    directory.mkdir()
    link = directory.parent / ("link" * 30)
    link.symlink_to(directory)
    assert postgres.place(link / "postgres") == postgres.place(directory / "postgres")


def test_a_server_that_was_killed_recovers(directory, supervisor):
    write(directory)
    os.kill(server_of(directory).pid, signal.SIGKILL)
    supervisor.stdin.close()
    supervisor.wait(30)
    with postgres.running(directory):
        assert ask(directory, "SELECT it FROM kept") == 7


def test_its_supervisor_can_start_a_server_again_that_was_killed(directory):
    with postgres.running(directory) as server:
        write(directory)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        assert server.has_ended()
        server.start()
        assert ask(directory, "SELECT it FROM kept") == 7


def test_the_trace_of_a_server_long_gone_is_no_obstacle(directory):
    with postgres.running(directory):
        pass
    trace = postgres.place(directory).data / "postmaster.pid"
    trace.write_text(f"{os.getpid()}\n{trace.parent}\n")
    with postgres.running(directory):
        assert ask(directory, "SELECT 1") == 1


def test_a_long_path_gets_a_short_socket(directory):
    deep = directory / ("x" * 100)
    with postgres.running(deep) as server:
        sockets = server.place.sockets
        assert len(str(sockets / postgres.SOCKET)) <= postgres.LONGEST_SOCKET_PATH
        assert ask(deep, "SELECT 1") == 1
    shutil.rmtree(sockets)


def test_any_name_will_do_for_a_directory(directory):
    odd = directory / 'a,b it\'s "x" \\ ü %'
    with postgres.running(odd, durable=False) as server:
        assert ask(odd, "SELECT 1") == 1
        assert server.place.data.is_relative_to(odd)
    shutil.rmtree(server.place.sockets)


def test_a_start_that_fails_says_what_the_server_said(directory):
    with postgres.running(directory):
        pass
    with (postgres.place(directory).data / "postgresql.conf").open("a") as settings:
        settings.write("nonsense = 1\n")
    with pytest.raises(postgres.PostgresError, match='unrecognized configuration parameter "nons'):
        with postgres.running(directory):
            pass


def test_data_of_another_major_version_is_refused_with_the_commands_that_take_it_over(directory):
    with postgres.running(directory):
        write(directory)
    written = postgres.place(directory).data / "PG_VERSION"
    version = written.read_text()
    written.write_text("17\n")
    with pytest.raises(postgres.PostgresError, match="was written by PostgreSQL 17") as refused:
        with postgres.running(directory):
            pass
    written.write_text(version)

    dump, load = [line for line in str(refused.value).splitlines() if line.startswith("    ")]
    with postgres.running(directory):
        run_in_shell(dump, directory)
    written.parent.rename(directory / "of-old")
    run_in_shell(load, directory)
    with postgres.running(directory):
        assert ask(directory, "SELECT it FROM kept") == 7


def run_in_shell(command: str, directory: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    subprocess.run(
        command.replace("muster.sql", f"{directory}/muster.sql"),
        shell=True,
        cwd=HOME,
        env=kept | {"MUSTER_VAR": str(directory.parent)},
        timeout=60,
        check=True,
    )


def test_the_log_of_a_server_that_prints_without_end_is_bounded(directory):
    with postgres.running(directory) as server:
        log = server.place.log
        with log.open("ab") as printed:
            printed.truncate(child_processes.LARGEST_LOG + 1)
        server.bound_log()
        assert log.stat().st_size == 0
        with psycopg.connect(server.place.conninfo()) as connection:
            connection.execute("DO $$ BEGIN RAISE WARNING 'said after that'; END $$")
        assert "said after that" in server.last_said()
    assert log.with_suffix(".log.1").stat().st_size > child_processes.LARGEST_LOG


@pytest.mark.parametrize(
    ("asked", "wanted"), [("", "10 20000"), ("?tcp_user_timeout=7000&keepalives_idle=5", "5 7000")]
)
def test_a_connection_that_hangs_is_given_up_by_the_kernel(tmp_path, asked, wanted):
    done = subprocess.run(
        [sys.executable, "-c", SOCKET_OPTIONS],
        cwd=HOME,
        env=os.environ
        | {
            "DATABASE_URL": f"postgres://u@127.0.0.1/d{asked}",
            "DJANGO_SETTINGS_MODULE": "orchestrator.server.settings",
            "MUSTER_VAR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == wanted, done.stderr


SOCKET_OPTIONS = """
import os, socket
import psycopg
from django.conf import settings
server = socket.create_server(("127.0.0.1", 0))
said = {name: settings.DATABASES["default"]["OPTIONS"][name] for name in settings.OVER_TCP}
host, port = server.getsockname()
where = psycopg.conninfo.make_conninfo(host=host, port=port, **said)
link = psycopg.pq.PGconn.connect_start(where.encode())
wire = socket.socket(fileno=os.dup(link.socket))
options = socket.TCP_KEEPIDLE, socket.TCP_USER_TIMEOUT
print(*(wire.getsockopt(socket.IPPROTO_TCP, it) for it in options))
"""
