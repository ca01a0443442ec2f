"""Agents that wall tasks off, as root and as an ordinary user, and what a hostile task says."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from nodes.agent import walls
from nodes.protocol.messages import Order, Report, Task
from nodes.protocol.resources import Resources
from tests.agent.agents import Agent, cluster
from tests.agent.orchestrator import Orchestrator, run

#: An ordinary user, and a Python that she may start.
NOBODY, PYTHON = 65534, "/usr/bin/python3"
#: By root at each level; by an ordinary user in a sandbox.
LEVELS = ("user", "cgroup", "sandbox", "ordinary")
Story = Callable[[Orchestrator, Agent], Awaitable[None]]


def needs(level: str) -> None:
    """Skip, with the reason, where the machine has no such walls."""
    if os.geteuid() != 0:
        pytest.skip("only root can give tasks users, and be somebody else")
    if (why := _why_not(level)) is not None:
        pytest.skip(f"{level}: {why}")


_KNOWN: dict[str, str | None] = {}


def _why_not(level: str) -> str | None:
    if level not in _KNOWN:
        with place(level) as state:
            if level == "ordinary":
                _KNOWN[level] = _why_not_ordinary(state)
            else:
                try:
                    walls.build(walls.Wanted(level), state, 1)
                    _KNOWN[level] = None
                except walls.Unavailable as why:
                    _KNOWN[level] = str(why)
    return _KNOWN[level]


def _why_not_ordinary(state: Path) -> str | None:
    code = (
        "import sys; from pathlib import Path; from nodes.agent import walls; "
        "walls.build(walls.Wanted('sandbox'), Path(sys.argv[1]), 1)"
    )
    command, environ = ordinary()
    tried = subprocess.run(
        [*command, "-c", code, str(state)],
        env=environ,
        cwd=state,
        capture_output=True,
        text=True,
        check=False,
    )
    return tried.stderr.strip().splitlines()[-1] if tried.returncode else None


def ordinary() -> tuple[tuple[str, ...], dict[str, str]]:
    """How an ordinary user starts Python with our code and what it needs."""
    drop = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
    home = str(Path(__file__).parents[2])
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{home}:{sysconfig.get_path('purelib')}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return (*drop, PYTHON), environ


@contextmanager
def place(level: str) -> Iterator[Path]:
    """A state directory that the agent can reach, whoever it is."""
    directory = Path(tempfile.mkdtemp(prefix="muster-"))
    directory.chmod(0o755)
    state = directory / "state"
    state.mkdir(0o700)
    if level == "ordinary":
        os.chown(state, NOBODY, NOBODY)
    try:
        yield state
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        for group in Path("/sys/fs/cgroup").rglob(group_of(state)):
            with contextlib.suppress(OSError):  # Not empty: its agent has left something.
                group.rmdir()


def group_of(state: Path) -> str:
    """What the cgroup of the agent at *state* is called."""
    return f"muster-{hashlib.sha256(os.fsencode(state)).hexdigest()[:12]}"


def story(*levels: str, options: tuple[str, ...] = ()) -> Callable[[Story], Callable[[str], None]]:
    """A test with an agent at each of *levels*, which is told *options*."""

    def wrap(tell: Story) -> Callable[[str], None]:
        @pytest.mark.parametrize("level", levels or LEVELS)
        def test(level: str) -> None:
            needs(level)
            python, environ = ordinary() if level == "ordinary" else ((sys.executable,), None)
            isolation = "sandbox" if level == "ordinary" else level
            agent = partial(
                Agent,
                options=("--isolation", isolation, *options),
                python=python,
                environ=environ,
            )

            async def play() -> None:
                async with cluster(state, agent) as (orchestrator, started):
                    await tell(orchestrator, started)

            with place(level) as state:
                asyncio.run(play())

        return test

    return wrap


def order(name: str, script: str, memory: int = 64 << 20, **rest: object) -> Order:
    """A task that runs *script*."""
    task = Task("process", ("sh", "-c", script), **rest)  # type: ignore[arg-type]
    return run(name, task=task, resources=Resources(cpu=100, memory=memory), grace=0.2)


async def tells(o: Orchestrator, name: str, script: str, **rest: object) -> Report:
    """How a task ended, and what it printed."""
    await o.order(order(name, script, **rest))
    [final] = await o.ended(name)
    return final


async def runs(o: Orchestrator, name: str, script: str, **rest: object) -> psutil.Process:
    """A task that goes on; its last program is ``sleep`` for so many seconds as only it sleeps."""
    seconds = f"{300 + os.getpid() % 100}.{zlib.crc32(name.encode()) % 10_000}"
    await o.order(order(name, f"{script}; exec sleep {seconds}", **rest))
    await soon(lambda: sleepers(seconds) or o.final(name))
    return sleepers(seconds)[0]


async def soon(question: Callable[[], object], within: float = 15.0) -> None:
    """Wait for what no event tells."""
    async with asyncio.timeout(within):
        while not question():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def sleepers(seconds: str) -> list[psutil.Process]:
    """Those who sleep for so long, wherever they hide."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if alive and process.info["cmdline"] == ["sleep", seconds]:
            found.append(process)
    return found
