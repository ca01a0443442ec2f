"""What runs of a local cluster: its one process, and the tasks that outlive it; found and ended."""

import asyncio
import fcntl
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nodes.agent import enrolment
from nodes.agent.drivers.journals import Journals
from nodes.agent.drivers.process import ProcessDriver

LOOK_EVERY = 0.1
ENDS_WITHIN = 60.0
"""Seconds that a cluster which was told to end is waited for."""


class StillThere(Exception):
    """Something runs that ought not to; the message says what, and what to do."""


@contextmanager
def sole_cluster(var: Path) -> Iterator[None]:
    """Be the one cluster of *var* for a while; raises StillThere when there is one."""
    var.mkdir(parents=True, exist_ok=True)
    with _lock_file(var).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StillThere(
                f"A cluster runs in {var} already (process {_holder(var)}); `make down` stops it."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def end_cluster(var: Path) -> bool:
    """End the cluster that runs in *var*, in good order; whether there was one."""
    holder = _holder(var)
    if holder is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(holder, signal.SIGTERM)
    deadline = time.monotonic() + ENDS_WITHIN
    while _holder(var) is not None:
        if time.monotonic() > deadline:
            raise StillThere(f"Process {holder} does not end: kill -9 {holder} ends it.")
        time.sleep(LOOK_EVERY)
    return True


def tasks(agents: Path) -> list[str]:
    """The executions whose tasks run below the directory *agents*, by the journals there."""
    return [
        execution for state in _states(agents) for execution in Journals(state / "exits").running()
    ]


def stop_tasks(agents: Path) -> int:
    """Stop every task below *agents*, TERM before KILL, and wait; how many there were.

    No agent may run there: raises StillThere.
    """
    logging.getLogger("nodes.agent").setLevel(logging.ERROR)  # It warns of what we are here for.
    found = {state: Journals(state / "exits").running() for state in _states(agents)}
    try:
        for state in (state for state, running in found.items() if running):
            asyncio.run(_stop_all(state))
    except enrolment.InUse as why:
        raise StillThere(f"{why}; end it first.") from None
    return sum(map(len, found.values()))


async def _stop_all(state: Path) -> None:
    """A driver whose agent knows of no task stops all that it finds."""
    told = asyncio.Event()
    with enrolment.claim(state):
        driver = ProcessDriver(state, lambda _facts: told.set())
        driver.open((), rebooted=False)
        while driver.running():
            await told.wait()
            told.clear()
        driver.close()


def _states(agents: Path) -> list[Path]:
    return sorted(state.parent for state in agents.glob("*/exits"))


def _holder(var: Path) -> int | None:
    """The process that runs the cluster of *var*; None when nobody does."""
    try:
        with _lock_file(var).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return int(_lock_file(var).read_text() or 0) or None
    return None


def _lock_file(var: Path) -> Path:
    return var / "up.pid"
