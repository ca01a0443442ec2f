"""A cluster of real processes in a directory of its own, each of which can be killed.

Nobody supervises it but its owner: what is killed stays dead until it is started again.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from orchestrator.server import child_processes, postgres
from orchestrator.server.environment import HOME
from tests.served import free_port

MANAGE = (sys.executable, "manage.py")
BASE = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME")
PATIENCE = 60.0
LAST_LINES = 15


class NotInTime(Exception):
    """What was waited for did not come about."""


def until(
    question: Callable[[], Any], *, within: float = PATIENCE, pause: float = 0.02, say: Any = ""
) -> Any:
    """Wait until *question* has a true answer, and return that; *say* words what was waited for."""
    deadline = time.monotonic() + within
    while not (answer := question()):
        if time.monotonic() > deadline:
            raise NotInTime(f"not within {within:g} s: {say() if callable(say) else say}")
        time.sleep(pause)
    return answer


@dataclass
class Part:
    """One program of the cluster."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self.process is None or self.process.poll() is not None, f"{self.name} runs"
        with self.log.open("ab") as log:
            self.process = child_processes.start(
                self.command, environ=self.environ, output=log, directory=HOME
            )

    def kill(self) -> None:
        """Kill this one process, not what it has started."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, within: float = 10.0) -> None:
        if self.process is not None:
            child_processes.end(self.process, by=signal.SIGTERM, within=within)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def family(self) -> list[psutil.Process]:
        """The process and everything below it that lives."""
        with suppress(psutil.NoSuchProcess):
            it = psutil.Process(self.pid)
            return [it, *it.children(recursive=True)]
        return []


class Cluster:
    """A database, web, workers and agents; enter `running` to have one."""

    def __init__(
        self,
        directory: Path,
        *,
        agents: int = 3,
        workers: int = 2,
        cpu: int = 16_000,
        durable: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.here = f"http://127.0.0.1:{self.port}"
        self.server = postgres.Server(postgres.place(directory / "postgres"), durable=durable)
        self.parts: dict[str, Part] = {}
        self.agents = [f"agent-{number}" for number in range(1, agents + 1)]
        self._cpu, self._durable = cpu, durable
        self._base = {name: os.environ[name] for name in BASE if name in os.environ}
        self.environ = {
            **self._base,
            "MUSTER_VAR": str(directory),
            "MUSTER_WORKERS": str(workers),
            "MUSTER_REQUESTS_PER_SECOND": "0",  # One user asks for all.
            **(environ or {}),
        }
        self._database: psycopg.Connection[Any] | None = None

    # --- life ----------------------------------------------------------------------------------

    @contextmanager
    def running(self, *, simulated: int = 0) -> Iterator[Cluster]:
        """Start everything, and at the end stop everything; *simulated* more nodes may join."""
        self.directory.chmod(0o755)  # The database may run as another user.
        with ExitStack() as until_the_end:
            self.server = until_the_end.enter_context(
                postgres.running(self.directory / "postgres", durable=self._durable)
            )
            until_the_end.callback(self._stop)
            self._prepare(len(self.agents) + simulated)
            self.add("web", "web", "--port", str(self.port))
            self.add("worker", "worker")
            for name in self.agents:
                self._start(name, self._agent(name), {**self._base, "PYTHONPATH": str(HOME)})
            self.wait_until_ready()
            yield self

    def _prepare(self, nodes: int) -> None:
        made = subprocess.run(
            [sys.executable, "-m", "tests.chaos.prepare", str(nodes)],
            cwd=HOME,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise RuntimeError(f"the database cannot be prepared:\n{made.stdout}{made.stderr}")
        secrets = json.loads(made.stdout)
        self.join_token: str = secrets["join"]
        (self.directory / "join-token").write_text(self.join_token)
        self.proofs = self.directory / "proofs"
        self.proofs.mkdir()
        self.client = httpx.Client(
            base_url=f"{self.here}/api/v1/",
            headers={"Authorization": f"Bearer {secrets['api']}"},
            timeout=30,
            trust_env=False,
        )

    def _agent(self, name: str) -> tuple[str, ...]:
        return (
            *(sys.executable, "-m", "nodes.agent", "--server", self.here, "--name", name),
            *("--state-dir", str(self.directory / name), "--cpu", str(self._cpu)),
            *("--memory", "64GiB", "--join-token-file", str(self.directory / "join-token")),
            *("--isolation", "none"),  # Tasks leave their proofs beside the state directories.
        )

    def add(self, name: str, *words: str) -> None:
        """Start one more ``manage.py`` with these words."""
        self._start(name, (*MANAGE, *words), self.environ)

    def _start(self, name: str, command: tuple[str, ...], environ: Mapping[str, str]) -> None:
        self.parts[name] = Part(name, command, environ, self.directory / f"{name}.log")
        self.parts[name].start()

    def wait_until_ready(self, within: float = PATIENCE) -> None:
        """Return when the cluster takes jobs and all its agents are connected."""
        until(self._is_ready, within=within, say=lambda: f"ready\n{self.said()}")

    def _is_ready(self) -> bool:
        for part in self.parts.values():
            if part.process is not None and part.process.poll() is not None:
                raise RuntimeError(f"{part.name} has ended\n{self.said()}")
        try:
            ready = httpx.get(f"{self.here}/readyz", timeout=2, trust_env=False).is_success
        except httpx.HTTPError:
            return False
        connected = "SELECT count(*) FROM nodes_node WHERE connection = 'connected'"
        return bool(ready and self.one(connected) >= len(self.agents))

    def _stop(self) -> None:
        if self._database is not None:
            self._database.close()
        if hasattr(self, "client"):
            self.client.close()
        spawners = [pid for name in self.agents if (pid := self.spawner(name))]
        for part in self.parts.values():
            with suppress(ProcessLookupError):
                if part.process is not None and part.process.poll() is None:
                    part.process.send_signal(signal.SIGTERM)
        for part in self.parts.values():
            part.stop()
        self._end_tasks(spawners)

    def _end_tasks(self, spawners: list[int]) -> None:
        """Tasks outlive their agent on purpose; here they end with the cluster."""
        for pid in [*spawners, *(p.pid for p in self.leftovers())]:
            with suppress(psutil.NoSuchProcess):
                top = psutil.Process(pid)
                for process in [top, *top.children(recursive=True)]:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()

    def leftovers(self) -> list[psutil.Process]:
        """Spawners and supervisors of this cluster's agents, wherever they hang."""
        mine = str(self.directory)
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "spawner.py" in " ".join(words) and any(word.startswith(mine) for word in words):
                found.append(process)
        return found

    # --- asking --------------------------------------------------------------------------------

    @property
    def database(self) -> psycopg.Connection[Any]:
        """A connection of our own, made again when it was lost."""
        if self._database is None or self._database.closed:
            everything = self.server.place.conninfo(user=postgres.SUPERUSER)
            self._database = psycopg.connect(everything, autocommit=True)
        return self._database

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the database, over however many restarts of it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.database.execute(query, values).fetchall()
            except psycopg.OperationalError:
                if self._database is not None:
                    self._database.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def one(self, query: str, *values: Any) -> Any:
        return self.rows(query, *values)[0][0]

    def said(self) -> str:
        """The last lines of every part, for whoever has to find out what went wrong."""
        texts = []
        for log in (*(part.log for part in self.parts.values()), self.server.place.log):
            with suppress(OSError):
                lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
                texts.append("\n".join([f"--- {log.name}", *lines]))
        return "\n".join(texts)

    # --- who is who ----------------------------------------------------------------------------

    def workers(self) -> list[int]:
        """The processes that evaluate: not the parent, sentinel, pusher nor monitor."""
        family = {process.pid for process in self.parts["worker"].family()}
        told = self.rows("SELECT pid FROM orchestrator_workerprocess")
        return sorted(family & {pid for (pid,) in told})

    def busy_workers(self) -> list[int]:
        """Those of them that hold leases at this moment."""
        holders = self.rows(
            "SELECT DISTINCT worker FROM orchestrator_brokerrow WHERE leased_until IS NOT NULL"
        )
        named = {int(number) for (name,) in holders for number in re.findall(r"\d+", name)}
        return [pid for pid in self.workers() if pid in named]

    def sentinel(self) -> int:
        """The guard of the q cluster: the child of the parent, and father of all the others."""

        def find() -> int | None:
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(self.parts["worker"].pid).children():
                    if child.children():
                        return child.pid
            return None

        return int(until(find, say="a sentinel"))

    def spawner(self, agent: str) -> int | None:
        """The process that forks the tasks of *agent*; None when there is none at the moment."""
        state = str(self.directory / agent)
        for process in self.leftovers():
            with suppress(psutil.NoSuchProcess):
                parent = process.parent()
                forked = parent is not None and "spawner.py" in " ".join(parent.cmdline())
                if state in process.cmdline() and not forked:
                    return process.pid
        return None


def kill(pid: int) -> None:
    """Kill this one process, and return when it is gone."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        os.kill(pid, signal.SIGKILL)
        with suppress(psutil.TimeoutExpired):  # A zombie is as dead; its parent may be busy.
            process.wait(0.5)
