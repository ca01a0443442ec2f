"""The server's life: one supervisor, everybody else only connects."""

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg

from orchestrator.server import child_processes, private_files

from . import programs, roles
from .owner import CURE, Owner, name_of, own, owner_of
from .place import DATABASE, SEGMENT, SUPERUSER, Place, PostgresError, Taken, place

PATIENCE = 30.0

NO_SPACE = "No space left on device"

SETTINGS = {
    "cluster_name": "muster",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "128MB",
    "effective_io_concurrency": "16",
    "random_page_cost": "1.1",
    "io_method": "sync",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_compression": "on",
    "wal_buffers": "8MB",
    "max_wal_size": "1GB",
    "checkpoint_completion_target": "0.9",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "autovacuum_naptime": "20s",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %a ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_checkpoints": "off",
    "log_lock_waits": "on",
}
"""Small queries, many of them, on a machine that also does other things. Commits stay durable."""

FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For a database that nobody will miss after a power cut: that of a test run."""


def is_running(directory: Path) -> bool:
    """Whether a server of *directory* answers, and knows our passwords."""
    try:
        psycopg.connect(place(directory).conninfo("postgres")).close()
    except psycopg.OperationalError as why:
        # It answered, only not with a session: starting, stopping or without its roles is not
        # running for us; full is.
        return "too many clients" in str(why) or "remaining connection slots" in str(why)
    return True


class Server:
    """A server that we run: we hold the lock of its directory."""

    def __init__(self, where: Place, *, durable: bool) -> None:
        self.place = where
        self.durable = durable
        self.owner = owner_of(where)
        self.programs = programs.find()
        self.process: subprocess.Popen[bytes] | None = None
        self._log_offset = 0

    def start(self) -> None:
        """Start it, over whatever a crash left, and return when it takes connections."""
        _end_leftover(self.place)
        roles.make_passwords(self.place)
        if not self.place.data.exists():
            _initialise(self.place, self.programs, self.owner)
        _insist_on_version(self.place, self.programs)
        roles.ask_for_passwords(self.place.data, self.owner)
        self.bound_log()
        self._log_offset = self.place.log.stat().st_size if self.place.log.exists() else 0
        try:
            self._run()
            if not roles.are_set(self.place):  # Of a release before, or the file was lost.
                self.stop()
                _set_passwords(self.place, self.place.data, self.programs, self.owner)
                self._run()
            roles.hand_over(self.place)
        except (PostgresError, psycopg.Error) as why:
            raise PostgresError(f"{why} {self.last_said()}".strip()) from None

    def has_ended(self) -> bool:
        """Whether it is gone although nobody stopped it."""
        return self.process is None or self.process.poll() is not None

    def bound_log(self) -> None:
        """Set aside what it printed when that is much; on a full disk it is gone."""
        with suppress(OSError):
            if not child_processes.set_aside_if_large(self.place.log):
                return
        self._log_offset = 0

    def last_said(self) -> str:
        """Give the last lines that it printed since it was started, and what they come to."""
        printed = child_processes.last_printed(self.place.log, self._log_offset)
        room = shutil.disk_usage(self.place.home).free
        full = NO_SPACE in printed or room < SEGMENT
        cure = (
            f" There is no space left on the disk of {self.place.home}: make room." if full else ""
        )
        lines = "".join(f"\n    {line}" for line in printed.splitlines()[-8:])
        return f"{cure}{f' {self.place.log} says:{lines}' if lines else ''}"

    def _run(self) -> None:
        self.process = _start(self.place, self.programs, self.owner, durable=self.durable)
        _await_ready(self.place, self.process)

    def stop(self) -> None:
        """Stop it: open transactions are rolled back, what was committed is on disk."""
        if self.process is not None:
            child_processes.end(
                self.process, by=signal.SIGINT, within=PATIENCE
            )  # SIGINT: fast shutdown


@contextmanager
def running(directory: Path, *, durable: bool = True) -> Iterator[Server]:
    """Run the server of *directory* and stop it at the end; makes what is missing.

    Raises `Taken` if somebody else runs it, and `PostgresError` if it does not start.
    """
    server = Server(place(directory), durable=durable)
    _make_home(server.place)
    with _supervising(server.place):
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def available(directory: Path) -> Iterator[Place]:
    """Have a server of *directory* for a while: whoever runs one, and if nobody does, we do."""
    if is_running(directory):
        yield place(directory)
        return
    try:
        with running(directory) as server:
            yield server.place
    except Taken:
        where = place(directory)
        deadline = time.monotonic() + PATIENCE
        while not is_running(directory):  # Its supervisor is starting or stopping it just now.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        yield where


def _make_home(where: Place) -> None:
    """Make the directories above the data; passable, since below them another user may work."""
    private_files.make_directory(where.home, 0o711)
    if os.geteuid() not in {0, where.home.stat().st_uid}:
        raise PostgresError(
            f"{where.home} belongs to another user ({name_of(where.home.stat().st_uid)}). {CURE}"
        )
    where.home.chmod(0o711)


@contextmanager
def _supervising(where: Place) -> Iterator[None]:
    """Hold the directory's lock; the kernel gives it back however this process ends."""
    with where.lock.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = lock.read().strip() or "another process"
            raise Taken(
                f"The database in {where.home} is run by {who} already. Stop that one first, "
                "or give this one a MUSTER_VAR of its own."
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        yield


def _environ() -> dict[str, str]:
    """Give the server nothing of our environment: no secrets, no locale, no PG* variables."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _initialise(where: Place, bin_directory: Path, owner: Owner) -> None:
    """Make the data directory; it gets its name only when it is whole."""
    half = where.home / "data.half"
    shutil.rmtree(half, ignore_errors=True)
    own(half, owner)
    made = child_processes.start(
        [
            bin_directory / "initdb",
            f"--pgdata={half}",
            f"--username={SUPERUSER}",
            "--auth=reject",  # Until our own rules are there.
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        ],
        environ=_environ(),
        owner=owner,
        output=subprocess.PIPE,
        directory="/",
    )
    printed, _ = made.communicate()
    if made.returncode:
        raise PostgresError(f"initdb could not make {half}:\n{printed.decode(errors='replace')}")
    _set_passwords(where, half, bin_directory, owner)
    half.rename(where.data)


def _set_passwords(where: Place, data: Path, bin_directory: Path, owner: Owner) -> None:
    roles.set_passwords(where, data, bin_directory / "postgres", owner, environ=_environ())


def _end_leftover(where: Place) -> None:
    """End a server whose supervisor died, and forget the trace of one that died with it.

    We hold the lock, so nobody supervises it. Normally the kernel has told it to stop already and
    this only waits.
    """
    trace = where.data / "postmaster.pid"
    try:
        # A server that set passwords by itself has written its number with a minus.
        server = psutil.Process(abs(int(trace.read_text().split("\n", 1)[0])))
        if Path(server.cwd()).resolve() != where.data.resolve():
            raise psutil.NoSuchProcess(server.pid)  # The number was given to somebody else since.
    except FileNotFoundError:
        return
    except (ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
        trace.unlink(missing_ok=True)
        return
    for order in (signal.SIGINT, signal.SIGQUIT):
        try:
            server.send_signal(order)
            server.wait(PATIENCE / 2)
        except psutil.NoSuchProcess:
            return
        except psutil.TimeoutExpired:
            continue
        return
    raise PostgresError(f"An old server of {where.home}, process {server.pid}, does not stop.")


def _insist_on_version(where: Place, bin_directory: Path) -> None:
    """Refuse data that another major version of PostgreSQL wrote, and say how to take it over."""
    try:
        theirs = (where.data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:  # Damaged: the server will say so.
        return
    if theirs == programs.MAJOR:
        return
    to_server = [f"--host={where.sockets}", f"--username={SUPERUSER}"]
    as_it_is = ["--no-owner", "--no-privileges", "--file=muster.sql", DATABASE]
    dump = [str(bin_directory / "pg_dump"), *to_server, *as_it_is]
    load = [sys.executable, "manage.py", "dbshell", "--", "--set=ON_ERROR_STOP=1"]
    raise PostgresError(
        f"{where.data} was written by PostgreSQL {theirs}; this Muster brings {programs.MAJOR}, "
        "which cannot read it. Nothing was changed. While the Muster that wrote it runs, dump it:\n"
        f"    PGPASSFILE={shlex.quote(str(where.passwords))} {shlex.join(dump)}\n"
        f"Stop that one, move {where.data} away, and load the dump into a new database:\n"
        f"    PATH={shlex.quote(str(bin_directory))}:$PATH {shlex.join(load)} -1 -f muster.sql"
    )


def _start(
    where: Place, bin_directory: Path, owner: Owner, *, durable: bool
) -> subprocess.Popen[bytes]:
    own(where.sockets, owner)
    settings = SETTINGS | {"unix_socket_directories": str(where.sockets)}
    if not durable:
        settings |= FORGETFUL
    with private_files.open_log(where.log) as log:
        return child_processes.start(
            [
                bin_directory / "postgres",
                "-D",
                where.data,
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            by=signal.SIGINT,
            environ=_environ(),
            owner=owner,
            output=log,
            directory="/",
        )


def _await_ready(where: Place, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server says in its own file that it takes connections."""
    deadline = time.monotonic() + PATIENCE * 4  # Recovery after a crash may take its time.
    while True:
        if server.poll() is not None:
            raise PostgresError("PostgreSQL did not start.")
        with suppress(FileNotFoundError):
            said = (where.data / "postmaster.pid").read_text().split("\n")
            if len(said) > 7 and said[0] == str(server.pid) and said[7].strip() == "ready":
                return
        if time.monotonic() > deadline:
            raise PostgresError("PostgreSQL takes too long to start.")
        time.sleep(0.01)
