"""Processes that begin under ``strace``, which counts their calls and makes one of them fail.

A tracee is a thread.  Each counts for itself, and each kind of call for itself: the third ``write``
is hit in every thread that gets so far.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
SPAWNER = REPOSITORY / "nodes" / "agent" / "spawner.py"
#: Every call by which a file, a directory or what is kept of them changes.
CALLS = (
    *("write", "pwrite64", "writev", "ftruncate", "fallocate", "fsync", "fdatasync"),
    *("rename", "renameat", "renameat2", "mkdir", "mkdirat"),
    *("unlink", "unlinkat", "rmdir", "openat"),
)
FAULTS = {
    "KILL": "signal=KILL:when={}",
    "ENOSPC": "error=ENOSPC:when={}",
    "ENOSPC, on and on": "error=ENOSPC:when={}+",
    "EIO": "error=EIO:when={}",
}
#: Stops itself until it is traced.
_WAIT = "import os, runpy, signal; os.kill(os.getpid(), signal.SIGSTOP); runpy."
_WAKE_UP_FAILED = re.compile(r'write\(\d+, "\\\d+", 1\) += -1 .*INJECTED')
_CALL = re.compile(r"^(?:(\d+) +)?(\w+)\((.*)")


def why_not() -> str:
    """Why nothing can be traced here, or nothing."""
    return "" if shutil.which("strace") else "strace is not installed: no call can be made to fail"


class Tracer:
    """One ``strace`` of one or several processes; *call* and *fault* say what it does to them."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: Process | None = None

    async def attach(
        self,
        pids: list[int],
        call: str = "",
        fault: str = "",
        at: int = 0,
        *,
        followed: bool = True,
    ) -> None:
        """Begin; threads and forks are *followed*, if so, other programs never."""
        said = self.log.with_suffix(".said")
        what = ["-e", f"trace={call or ','.join(CALLS)}"]
        if fault:
            what += ["-e", f"inject={call}:{FAULTS[fault].format(at)}"]
        follow = ["-f", "-b", "execve"] if followed else []
        which = [word for pid in pids for word in ("-p", str(pid))]
        with said.open("wb") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *("strace", "-o", str(self.log), *follow, *what, *which), stderr=stderr
            )
        await until(lambda: said.read_text().count(" attached") >= len(pids), 30, "strace attaches")

    def has_hit(self) -> bool:
        text = self._text()
        return "(INJECTED)" in text or "+++ killed by SIGKILL" in text

    def failed_what_no_disk_fails(self) -> bool:
        """Whether the error was put on the byte by which a signal wakes its own process."""
        return _WAKE_UP_FAILED.search(self._text()) is not None

    async def detach(self) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                kill(self._process.pid, number=signal.SIGINT)
            try:  # It waits for ever for who waits in vfork for a child that it has stopped.
                async with asyncio.timeout(5):
                    await self._process.wait()
            except TimeoutError:
                kill(self._process.pid)
                await self._process.wait()

    def places(self, *, before: str = "") -> dict[str, list[list[int]]]:
        """For each call the numbers at which a tracee made it; of ``openat`` those that create.

        What a tracee did without another call between is one stretch.  The last line that counts
        is the first with *before*.
        """
        made: Counter[tuple[str | None, str]] = Counter()
        last: dict[str | None, str] = {}
        found: dict[str, list[list[int]]] = {}
        for line in self._text().splitlines():
            if (match := _CALL.match(line)) is None:
                continue
            pid, call, rest = match.groups()
            made[pid, call] += 1
            if call != "openat" or "O_CREAT" in rest:
                if last.get(pid) != call:
                    found.setdefault(call, []).append([])
                found[call][-1].append(made[pid, call])
                last[pid] = call
            if before and before in line:
                break
        return found

    def _text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


async def trace(
    tracer: Tracer, process: Process, call: str, fault: str, at: int, *, followed: bool = True
) -> None:
    """Have *process*, which has stopped itself, traced from its beginning."""
    await until(lambda: status(process.pid) == "T", 30, "it waits for its tracer")
    await tracer.attach([process.pid], call, fault, at, followed=followed)
    os.kill(process.pid, signal.SIGCONT)


async def start_agent(
    state: Path, url: str, log: Path, *more: str, stopped: bool = False
) -> Process:
    begin = ["-c", _WAIT + "run_module('nodes.agent', run_name='__main__', alter_sys=True)"]
    options = ["--server", url, "--state-dir", str(state), "--name", "n", "--cpu", "100000"]
    options += ["--isolation", "none"]  # Its tasks leave their proofs beside the state directory.
    with log.open("ab") as stderr:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *(begin if stopped else ["-m", "nodes.agent"]),
            *options,
            *more,
            cwd=REPOSITORY,
            stderr=stderr,
        )


async def start_spawner(state: Path, connection: int, log: Path) -> Process:
    """A spawner that is stopped; the agent will find it as one that a former agent has left."""
    begin = _WAIT + f"run_path({str(SPAWNER)!r}, run_name='__main__')"
    with log.open("ab") as stderr:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", begin, str(state), str(connection)),
            env={"PATH": os.defpath},
            stdout=DEVNULL,
            stderr=stderr,
            start_new_session=True,
            pass_fds=[connection],
        )


def spawners_and_supervisors(state: Path) -> tuple[list[int], list[int]]:
    """The living ones of a state directory; a supervisor is a fork in the spawner's session."""
    spawners, supervisors = [], []
    for pid in _pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"-I" in words and str(state).encode() in words and status(pid) != "Z":
                (spawners if os.getsid(pid) == pid else supervisors).append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return spawners, supervisors


def _pids() -> Iterator[int]:
    return (int(place.name) for place in Path("/proc").iterdir() if place.name.isdigit())


def status(pid: int) -> str:
    """The letter that /proc has for it; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def kill(*pids: int, number: int = signal.SIGKILL) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def kill_all(state: Path) -> None:
    """Kill spawners and supervisors until there are none: a dying one may just have forked."""
    while found := [pid for pids in spawners_and_supervisors(state) for pid in pids]:
        kill(*found)
        await asyncio.sleep(0.005)


async def until(question: Callable[[], object], within: float = 10.0, say: str = "") -> None:
    """Wait for what no event tells."""
    try:
        async with asyncio.timeout(within):
            while not question():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise TimeoutError(f"not within {within:g} s: {say or question}") from None
