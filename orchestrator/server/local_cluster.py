"""The cluster of `manage.py up`: every part on this machine, started, kept running, ended."""

import os
import platform
import secrets
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import Any, Protocol

import httpx
import psutil
import psycopg
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DatabaseError, OperationalError, connection

from nodes.agent.main import REMOVED
from orchestrator.server import (
    cli_context,
    database_rights,
    isolation,
    listen_address,
    postgres,
    private_files,
    running_cluster,
)
from orchestrator.server.demo import Demo
from orchestrator.server.supervision import Backoff, Hopeless, Program, Supervisor

TEND_EVERY = 0.2
FORESEEN = (
    running_cluster.StillThere,
    listen_address.CannotListen,
    postgres.PostgresError,
    OperationalError,
    Hopeless,
)
"""What keeps a cluster from running, each with a sentence."""

MOST_NAMED = 5
"""Jobs that are named among what goes on."""
FOR_AGENTS = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME")
"""What an agent gets of our environment: nothing secret, as its tasks may inherit it."""


class CannotRun(Exception):
    """The cluster cannot run, or not any longer; the message says why, and what to do."""


class Output(Protocol):
    """What is written for people."""

    def write(self, msg: str) -> object: ...
    def flush(self) -> object: ...


@dataclass(frozen=True)
class LocalCluster:
    """Database, web, workers, agents and a demonstration, as children of this process."""

    host: str
    port: int
    agents: int
    demo: bool
    output: Output

    @property
    def here(self) -> str:
        """The address at which this machine reaches it."""
        return listen_address.url(self.host, self.port)

    def run(self) -> None:
        """Start every part and keep them running until somebody interrupts; raises CannotRun."""
        supervisor, going_on = Supervisor(self.say), ["Stopped."]
        with _interruptible(supervisor), ExitStack() as until_the_end:
            try:
                until_the_end.enter_context(running_cluster.sole_cluster(settings.VAR))
                _keep_others_out()
                listen_address.raise_unless_free(self.host, self.port)
                self.say(f"Muster  {self.here}/")
                database = self._database(until_the_end)
                until_the_end.callback(lambda: going_on.append(_what_goes_on()))
                until_the_end.callback(supervisor.stop)
                until_the_end.callback(self.say, "Stopping ...")
                self._prepare()
                token = _fresh_token("command line", "admin", expires_in=None)
                cli_context.write_config(settings.VAR, self.here, token)
                walls = isolation.LocalIsolation(self._nodes())
                self._start(supervisor)
                self._start_agents(supervisor)
                if self.demo:
                    until_the_end.callback(self._demonstrate().set)
                connection.close()
                self._tend(supervisor, database, walls)
            except KeyboardInterrupt:
                pass
            except FORESEEN as why:
                raise CannotRun(str(why)) from None
        self.say(" ".join(going_on))

    def say(self, line: str) -> None:
        """Print *line* at once, whoever reads."""
        with suppress(OSError):  # A full disk, a closed pipe: what is kept up matters more.
            self.output.write(line)
            self.output.flush()

    # --- the parts, in the order they start --------------------------------------------------

    def _database(self, until_the_end: ExitStack) -> postgres.Server | None:
        """Run the database of our own, or check that the one elsewhere answers."""
        if settings.EMBEDDED is None:
            connection.ensure_connection()
            if settings.APPLICATION_ROLE is None:
                self.say(database_rights.ONE_ROLE)
            return None
        return until_the_end.enter_context(postgres.running(settings.EMBEDDED))

    def _prepare(self) -> None:
        call_command("migrate", verbosity=0, interactive=False)
        admin = _administrator()
        if admin is not None:
            self.say(
                f"Sign in as {admin.username}; `manage.py changepassword` sets a new password."
            )
            return
        password = secrets.token_urlsafe(12)
        User.objects.create_superuser("admin", password=password)
        self.say(f"Sign in as admin, password {password} (printed this once).")

    def _start(self, supervisor: Supervisor) -> None:
        manage = (sys.executable, str(settings.BASE_DIR / "manage.py"))
        web = (*manage, "web", "--host", self.host, "--port", str(self.port))
        # They run as the application's role, and have nothing to do with the owner's password.
        environ = {name: it for name, it in os.environ.items() if name != "MUSTER_MIGRATE_URL"}
        for name, command in (("web", web), ("worker", (*manage, "worker"))):
            supervisor.add(Program(name, command, _log(name), environ))

    def _start_agents(self, supervisor: Supervisor) -> None:
        """Start the local nodes; each enrols over HTTP with a token, as any other node does."""
        directory = settings.VAR / "agents"
        names = self._nodes()
        token_file = directory / "join-token"
        unknown = [name for name in names if not (directory / name / "identity.json").exists()]
        if unknown:
            _write_join_token(token_file, uses=len(unknown))
        environ = {name: os.environ[name] for name in FOR_AGENTS if name in os.environ}
        environ["PYTHONPATH"] = str(settings.BASE_DIR)
        for name in names:
            command = (
                *(sys.executable, "-m", "nodes.agent", "--server", self.here, "--name", name),
                *("--state-dir", str(directory / name), "--join-token-file", str(token_file)),
                # A toy cluster: every node has the processors of this machine, and a part of
                # its memory.
                *("--cpu", str(1000 * (os.cpu_count() or 1))),
                *("--memory", str(psutil.virtual_memory().total // self.agents)),
                # The database, its secrets and the other agents are none of a task's business.
                *("--hide", str(settings.VAR)),
            )
            supervisor.add(Program(name, command, _log(name), environ, final=REMOVED))

    def _nodes(self) -> list[str]:
        return [f"local-{number}" for number in range(1, self.agents + 1)]

    def _demonstrate(self) -> Event:
        """Play the demonstration beside everything else, from when the cluster takes jobs."""
        token = _fresh_token("demonstration", "submit", expires_in=timedelta(hours=1))
        stopped = Event()

        def play() -> None:
            client = httpx.Client(
                base_url=f"{self.here}/api/v1/",
                headers={"Authorization": f"Bearer {token}"},
                timeout=30,
                trust_env=False,
            )
            try:
                with client:
                    if _ready(self.here, stopped):
                        Demo(client, say=self.say, stopped=stopped).play()
            except httpx.HTTPError as why:
                if not stopped.is_set():
                    self.say(f"demo: given up: {why}")

        Thread(target=play, name="demo", daemon=True).start()
        return stopped

    def _tend(
        self,
        supervisor: Supervisor,
        database: postgres.Server | None,
        walls: isolation.LocalIsolation,
    ) -> None:
        """Keep everything running until somebody interrupts."""
        told = told_of_walls = False
        keeper = None if database is None else _DatabaseKeeper(database, self.say)
        while True:
            time.sleep(TEND_EVERY)
            supervisor.tend()
            if keeper is not None:
                keeper.tend()
            if not told and _is_ready(self.here):
                told = True
                self.say(f"Ready: it takes jobs. What the parts say: {_log('*')}")
                self.say("\n    ".join(("Try:", *cli_context.commands(settings.VAR, self.here))))
            if told and not told_of_walls:
                told_of_walls = self._tell_of_walls(walls)

    def _tell_of_walls(self, walls: isolation.LocalIsolation) -> bool:
        """Say how far the local nodes wall tasks off, once they have said so; whether they have."""
        sentences = None
        with suppress(DatabaseError):
            sentences = walls.sentences(time.monotonic())
            connection.close()
        for sentence in sentences or ():
            self.say(sentence)
        return sentences is not None


class _DatabaseKeeper:
    """Starts the database of our own again when it ended, however often that takes."""

    def __init__(self, server: postgres.Server, say: Callable[[str], None]) -> None:
        self._server = server
        self._say = say
        self._backoff = Backoff()
        self._started_at = time.monotonic()
        self._due_at: float | None = None

    def tend(self) -> None:
        """Bound its log; start it if it has ended and its pause is over."""
        self._server.bound_log()
        if not self._server.has_ended():
            self._due_at = None
            return
        if self._due_at is None:
            self._fail(f"The database ended unexpectedly.{self._server.last_said()}")
        elif time.monotonic() >= self._due_at:
            self._start()

    def _start(self) -> None:
        self._started_at = time.monotonic()
        try:
            self._server.start()
        except (postgres.PostgresError, psycopg.Error, OSError) as why:
            self._fail(str(why))
        else:
            self._say("The database runs again.")

    def _fail(self, what: str) -> None:
        now = time.monotonic()
        pause = self._backoff.failed(self._started_at, now)
        self._due_at = now + pause
        self._say(f"{what}\nThe database is started again in {pause:g} s.")


@contextmanager
def _interruptible(supervisor: Supervisor) -> Iterator[None]:
    """Have every polite signal end the command in good order, and a second one at once."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in polite:
            signal.signal(number, at_once)
        raise KeyboardInterrupt

    def at_once(_number: int, _frame: FrameType | None) -> None:
        supervisor.kill()
        os._exit(130)  # The database ends with us, by the kernel's hand.

    polite = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in polite}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep_others_out() -> None:
    """Nobody else reads or writes what we keep, be it of a start with another umask."""
    var = Path(settings.VAR)
    found = var.stat()
    if found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
        var.chmod(stat.S_IMODE(found.st_mode) & ~(stat.S_IWGRP | stat.S_IWOTH))
    for name in ("log", "agents", "cli"):
        private_files.keep_others_out(var / name)


def _administrator() -> User | None:
    return User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()


def _fresh_token(name: str, scope: str, *, expires_in: timedelta | None) -> str:
    """Make a token of the administrator, in place of the one of the start before.

    Those of other directories and machines that share the database stay as they are.
    """
    from orchestrator.access import tokens
    from orchestrator.models import ApiToken

    # As long as there is room for in the row; the end of a path tells more than its beginning.
    whose = f"{name} of {platform.node()}:{settings.VAR}"[-100:]
    mine: dict[str, Any] = {"user": _administrator(), "name": whose}
    never = expires_in is None
    ApiToken.objects.filter(**mine, scopes=[scope], expires_at__isnull=never).delete()
    return tokens.create(**mine, scopes=[scope], expires_in=expires_in)


def _write_join_token(file: Path, *, uses: int) -> None:
    """Let *uses* nodes join with the token in *file*.

    It stays the one that it was: an agent that was ended before it heard that it has joined asks
    again, and by another token its name would be taken.
    """
    from nodes.membership import create_join_token, renew_join_token

    file.parent.mkdir(exist_ok=True)
    file.touch(mode=0o600)
    lasting = timedelta(hours=1)
    if renew_join_token(file.read_text(errors="replace"), uses=uses, expires_in=lasting):
        return
    file.write_text(
        create_join_token(
            created_by=_administrator(),
            uses=uses,
            expires_in=lasting,
            auto_approve=True,
            labels={"local": "yes"},
        )
    )


def _what_goes_on() -> str:
    """What still runs now that the cluster has ended, and how to stop it."""
    running = running_cluster.tasks(settings.VAR / "agents")
    if not running:
        return "No task runs any longer."
    jobs = ""
    with suppress(DatabaseError):
        from orchestrator.models import Job

        found = Job.objects.filter(executions__id__in=running).distinct().order_by("name")
        names = list(found.values_list("name", flat=True)[: MOST_NAMED + 1])
        more = ["…"] if len(names) > MOST_NAMED else []
        jobs = f" of {', '.join(names[:MOST_NAMED] + more)}" if names else ""
    what = f"One task{jobs} goes" if len(running) == 1 else f"{len(running)} tasks{jobs} go"
    return f"{what} on: `make down` stops what runs, `make up` takes it up again."


def _log(name: str) -> Path:
    return Path(settings.VAR) / "log" / f"{name}.log"


def _ready(here: str, stopped: Event) -> bool:
    """Wait until the cluster takes jobs; False if we are stopped before."""
    while not _is_ready(here):
        if stopped.wait(TEND_EVERY):
            return False
    return True


def _is_ready(here: str) -> bool:
    try:
        return httpx.get(f"{here}/readyz", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False
