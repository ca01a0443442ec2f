"""The process driver with real processes."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from nodes.agent.drivers.journals import Begun, Journals
from nodes.agent.drivers.process import ProcessDriver
from nodes.agent.drivers.spawner_link import PROGRAM, VERSION
from nodes.agent.facts import Exited, Fact, NeverStarted, NotStarted, Started, Vanished
from nodes.agent.logs import KEPT, LogFile
from nodes.agent.records import Entry, Stage
from nodes.agent.supervisor import TASKS
from nodes.protocol.messages import TAIL, Task
from tests.agent.agents import spawner_at
from tests.agent.faults.tracing import spawners_and_supervisors

pytestmark = pytest.mark.processes


def entry(execution: str, *command: str, **rest: object) -> Entry:
    values = {"task": Task("process", command), "driver": "process", "grace": 0.2, **rest}
    return Entry(execution, Stage.STARTING, **values)  # type: ignore[arg-type]


def shell(execution: str, script: str, **rest: object) -> Entry:
    return entry(execution, "sh", "-c", script, **rest)


class Bench:
    """A driver on its own, and what it has told."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.facts: list[Fact] = []
        self._told = asyncio.Event()
        self.driver = ProcessDriver(state, self.tell)

    def tell(self, facts: list[Fact]) -> None:
        self.facts += facts
        self._told.set()

    def open(self, *interrupted: Entry, rebooted: bool = False) -> None:
        self.tell(self.driver.open(interrupted, rebooted=rebooted))

    async def until(self, question: Callable[[], object], within: float = 15.0) -> None:
        async with asyncio.timeout(within):
            while not question():
                self._told.clear()
                await self._told.wait()

    def of(self, execution: str, *kinds: type[Fact]) -> list[Fact]:
        return [f for f in self.facts if f.execution == execution and isinstance(f, kinds)]

    async def started(self, execution: str) -> Started:
        await self.until(lambda: self.of(execution, Started))
        fact = self.of(execution, Started)[-1]
        assert isinstance(fact, Started)
        return fact

    async def over(self, execution: str) -> Fact:
        over = (Exited, NotStarted, Vanished, NeverStarted)
        await self.until(lambda: self.of(execution, *over))
        return self.of(execution, *over)[-1]

    async def ran(self, task: Entry) -> Exited:
        self.driver.start(task)
        fact = await self.over(task.execution)
        if isinstance(fact, NeverStarted):  # The core starts it then, and so do we.
            self.facts.remove(fact)
            return await self.ran(task)
        assert isinstance(fact, Exited), fact
        return fact


@asynccontextmanager
async def bench(state: Path) -> AsyncIterator[Bench]:
    one = Bench(state)
    one.open()
    try:
        yield one
    finally:
        one.driver.close()
        await gone(state)


async def gone(state: Path) -> None:
    """With nothing to supervise and nobody connected the spawner ends."""
    await soon(lambda: not (state / "spawner.sock").exists())


async def soon(question: Callable[[], object], within: float = 10.0) -> None:
    """Wait for what no event tells."""
    async with asyncio.timeout(within):
        while not question():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def with_bench(scenario: Callable[[Bench], Awaitable[None]]) -> Callable[[Path], None]:
    def test(tmp_path: Path) -> None:
        async def run() -> None:
            async with bench(tmp_path) as one:
                await scenario(one)

        asyncio.run(run())

    return test


def handle_of(started: Started) -> tuple[int, int]:
    """The pids of the task and of its supervisor."""
    pid, _, supervisor = started.handle.split(":")
    return int(pid), int(supervisor)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def children_of(pid: int) -> list[bytes]:
    """The command lines of its living children."""
    return [Path(f"/proc/{c}/cmdline").read_bytes() for c in pids_below(pid) if alive(c)]


def pids_below(pid: int) -> list[int]:
    """Its children, each by its parent: the kernel's own list may lack some while others end."""
    return [it.pid for it in psutil.Process(pid).children()]


def spawner_of(supervisor: int) -> int:
    return psutil.Process(supervisor).ppid()


# --- what a task is ------------------------------------------------------------------------------


@with_bench
async def _exit_codes(one: Bench) -> None:
    assert (await one.ran(entry("a", "true"))).status == 0
    assert (await one.ran(shell("b", "exit 3"))).status == 3
    assert (await one.ran(shell("c", "kill -SEGV $$"))).status == -signal.SIGSEGV


def test_exit_codes_and_signals_are_told_apart(tmp_path: Path) -> None:
    _exit_codes(tmp_path)


@with_bench
async def _output(one: Bench) -> None:
    fact = await one.ran(shell("a", "printf 'h\\303\\251\\000llo\\n'; echo bad >&2"))
    assert (fact.stdout, fact.stdout_size) == ("héllo\n", 8)
    assert (fact.stderr, fact.stderr_size) == ("bad\n", 4)
    assert fact.ran is not None
    assert 0 < fact.ran < 5


def test_the_end_of_both_outputs_comes_with_the_end_of_the_task(tmp_path: Path) -> None:
    _output(tmp_path)


@with_bench
async def _environment(one: Bench) -> None:
    os.environ["MUSTER_SECRET_OF_THE_AGENT"] = "no"
    task = Task("process", ("sh", "-c", "env; pwd; stat -c %a ."), env={"MUSTER_SLOT": "7"})
    lines = set((await one.ran(entry("a", task=task))).stdout.splitlines())
    home = str(one.state / "work" / "a")
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert lines - {"OLDPWD=", "SHLVL=0", "_=/usr/bin/env"} == {
        "MUSTER_SLOT=7",
        "LANG=C.UTF-8",
        f"HOME={home}",
        f"PWD={home}",
        path,
        home,
        "700",
    }
    del os.environ["MUSTER_SECRET_OF_THE_AGENT"]


def test_a_task_gets_a_clean_environment_and_a_directory_of_its_own(tmp_path: Path) -> None:
    _environment(tmp_path)


@with_bench
async def _not_started(one: Bench) -> None:
    script = one.state / "script"
    script.write_text("echo hello\n")
    script.chmod(0o755)
    for name, command, word in (
        ("missing", "no-such-program", "no-such-program is in no directory of the task's PATH"),
        ("nowhere", "/no/such/program", "/no/such/program does not exist on this node"),
        ("data", "/etc/passwd", "/etc/passwd is not executable"),
        ("script", str(script), f"{script} is neither a program nor a script"),
    ):
        one.driver.start(entry(name, command))
        fact = await one.over(name)
        assert isinstance(fact, NotStarted)
        assert word in fact.message
        assert fact.hint
        assert not fact.retryable
    await soon(lambda: list((one.state / "work").iterdir()) == [])


def test_what_cannot_be_executed_was_not_started_and_says_why(tmp_path: Path) -> None:
    _not_started(tmp_path)


@with_bench
async def _too_large(one: Bench) -> None:
    one.driver.start(entry("a", "true", "x" * 200_000))
    assert isinstance(fact := await one.over("a"), NotStarted)
    assert "too long" in fact.message
    one.driver.start(entry("b", "true", *["x" * 100_000] * 30))
    assert isinstance(fact := await one.over("b"), NotStarted)
    assert "too much" in fact.message
    assert (await one.ran(entry("c", "true"))).status == 0


def test_a_command_that_is_too_long_hurts_only_itself(tmp_path: Path) -> None:
    _too_large(tmp_path)


@with_bench
async def _hundreds(one: Bench) -> None:
    names = [f"e{number}" for number in range(300)]
    for number, name in enumerate(names):
        one.driver.start(shell(name, f"exit {number % 100}"))
    for number, name in enumerate(names):
        fact = await one.over(name)
        assert isinstance(fact, Exited)
        assert fact.status == number % 100
    assert sorted(path.name for path in (one.state / "work").iterdir()) == sorted(names)
    for name in names:
        one.driver.discard(name)
    await soon(lambda: list((one.state / "work").iterdir()) == [])


def test_three_hundred_tasks_at_once_all_tell_their_own_exit_code(tmp_path: Path) -> None:
    _hundreds(tmp_path)


# --- supervisors that serve again ----------------------------------------------------------------


async def idle_after(one: Bench, execution: str) -> int:
    """The pid of a supervisor that has run a task and now waits for another."""
    await one.ran(entry(execution, "true"))
    _, supervisor = handle_of(await one.started(execution))
    # It goes home before it says that it is free, and sleeps only after that.
    await soon(lambda: is_asleep(supervisor, one.state))
    return supervisor


def is_asleep(pid: int, directory: Path) -> bool:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rsplit(")", 1)[1].split()[0] == "S" and Path(f"/proc/{pid}/cwd").samefile(directory)


@with_bench
async def _served_again(one: Bench) -> None:
    first = await idle_after(one, "a")
    for number in range(5):
        assert await idle_after(one, f"e{number}") == first


def test_a_supervisor_that_is_done_serves_the_next_task(tmp_path: Path) -> None:
    _served_again(tmp_path)


@with_bench
async def _after_many(one: Bench) -> None:
    first = await idle_after(one, "first")
    for number in range(TASKS - 2):
        await idle_after(one, f"e{number}")
    await one.ran(entry("last", "true"))
    assert handle_of(await one.started("last"))[1] == first
    await soon(lambda: not alive(first))


def test_a_supervisor_that_served_many_tasks_makes_room_for_a_fresh_one(tmp_path: Path) -> None:
    _after_many(tmp_path)


@with_bench
async def _retired(one: Bench) -> None:
    for command, rest in (
        (("no-such-program",), {}),
        (("sleep", "60"), {"timeout": 0.1}),
    ):
        supervisor = await idle_after(one, f"before-{command[0]}")
        one.driver.start(entry(command[0], *command, **rest))
        await one.over(command[0])
        await soon(lambda pid=supervisor: not alive(pid))
    supervisor = await idle_after(one, "before-stop")
    one.driver.start(entry("stopped", "sleep", "60"))
    one.driver.stop("stopped")
    assert handle_of(await one.started("stopped"))[1] == supervisor
    fact = await one.over("stopped")
    assert isinstance(fact, Exited)
    assert fact.why == "stopped"
    await soon(lambda: not alive(supervisor))


def test_a_supervisor_ends_after_anything_unusual(tmp_path: Path) -> None:
    _retired(tmp_path)


@with_bench
async def _few_wait(one: Bench) -> None:
    names = [f"e{number}" for number in range(30)]
    for name in names:
        one.driver.start(entry(name, "sleep", "0.5"))
    supervisors = {handle_of(await one.started(name))[1] for name in names}
    assert len(supervisors) == len(names), "each serves one task at a time"
    for name in names:
        await one.over(name)
    await soon(lambda: len([pid for pid in supervisors if alive(pid)]) == 8)
    await soon(lambda: not any(alive(pid) for pid in supervisors))


def test_few_supervisors_wait_for_tasks_and_none_for_long(tmp_path: Path) -> None:
    _few_wait(tmp_path)


def test_idle_supervisors_end_with_the_spawner_that_nobody_needs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as one:
            supervisor = await idle_after(one, "a")
        assert not alive(supervisor)

    asyncio.run(scenario())


@with_bench
async def _idle_killed(one: Bench) -> None:
    for number, name in enumerate((signal.SIGKILL, signal.SIGTERM)):
        supervisor = await idle_after(one, f"a{number}")
        os.kill(supervisor, name)
        assert (await one.ran(shell(f"b{number}", "exit 3"))).status == 3
        assert not alive(supervisor)
    assert [fact for fact in one.facts if isinstance(fact, Vanished)] == []


def test_killing_an_idle_supervisor_harms_nothing(tmp_path: Path) -> None:
    _idle_killed(tmp_path)


@with_bench
async def _idle_bereft(one: Bench) -> None:
    supervisor = await idle_after(one, "a")
    os.kill(spawner_of(supervisor), signal.SIGKILL)
    await soon(lambda: not alive(supervisor))
    assert (await one.ran(entry("b", "true"))).status == 0


def test_an_idle_supervisor_ends_when_the_spawner_is_killed(tmp_path: Path) -> None:
    _idle_bereft(tmp_path)


@with_bench
async def _busy_bereft(one: Bench) -> None:
    supervisor = await idle_after(one, "a")
    fifo = one.state / "fifo"
    os.mkfifo(fifo)
    one.driver.start(shell("b", f"read x < {fifo}; exit 7"))
    assert handle_of(await one.started("b"))[1] == supervisor
    os.kill(spawner_of(supervisor), signal.SIGKILL)
    assert (await one.ran(entry("c", "true"))).status == 0
    await asyncio.to_thread(fifo.write_text, "go\n")
    fact = await one.over("b")
    assert isinstance(fact, Exited)
    assert fact.status == 7
    await soon(lambda: not alive(supervisor))


def test_a_reused_supervisor_finishes_its_task_without_the_spawner_and_ends(tmp_path: Path) -> None:
    _busy_bereft(tmp_path)


@with_bench
async def _reused_killed(one: Bench) -> None:
    supervisor = await idle_after(one, "a")
    one.driver.start(entry("b", "sleep", "60"))
    pid, busy = handle_of(await one.started("b"))
    assert busy == supervisor
    one.driver.start(shell("c", "sleep 0.5; exit 3"))
    await one.started("c")
    os.kill(supervisor, signal.SIGKILL)
    assert isinstance(await one.over("b"), Vanished)
    assert not alive(pid)
    fact = await one.over("c")
    assert isinstance(fact, Exited)
    assert fact.status == 3
    assert [fact.execution for fact in one.facts if isinstance(fact, Vanished)] == ["b"]


def test_a_reused_supervisor_that_is_killed_takes_only_its_own_task_along(tmp_path: Path) -> None:
    _reused_killed(tmp_path)


@with_bench
async def _late_stop(one: Bench) -> None:
    for number in range(20):
        # The stop is sent when the task ends or has just ended, the start right behind it.
        one.driver.start(entry(f"b{number}", "true"))
        await one.started(f"b{number}")
        one.driver.stop(f"b{number}")
        await one.over(f"b{number}")
        assert (await one.ran(shell(f"c{number}", "sleep 0.01; exit 3"))).status == 3


def test_a_stop_that_comes_too_late_does_not_stop_the_next_task(tmp_path: Path) -> None:
    _late_stop(tmp_path)


@with_bench
async def _no_leak(one: Bench) -> None:
    supervisor = await idle_after(one, "a")
    # What is open is counted before anything is printed: a log is opened with its first bytes.
    look = "n=$(ls /proc/$PPID/fd | wc -l); echo $n; umask"
    look += "; unset n; env | sort | grep -v -e ^_= -e ^HOME= -e ^PWD="
    before = await one.ran(shell("before", look))
    await soon(lambda: is_asleep(supervisor, one.state))
    pids = one.state / "pids"
    late = f"trap '' TERM HUP; echo $$ >> {pids}; while sleep 0.01; do echo late; done"
    script = f"""
        cd /; umask 077; export LEFT=over; echo out; echo err >&2
        sh -c "{late}" & setsid sh -c "{late}" &
        while [ $(wc -l < {pids}) -lt 2 ]; do sleep 0.01; done
    """
    pids.touch()
    task = Task("process", ("sh", "-c", script), env={"MUSTER_SLOT": "7"})
    await one.ran(entry("b", task=task))
    await soon(lambda: is_asleep(supervisor, one.state))
    assert not any(alive(int(line)) for line in pids.read_text().split())
    after = await one.ran(shell("c", f"{look}; pwd >&2; ps -o pid= -s $$ | wc -l >&2"))
    for name in ("before", "b", "c"):
        assert handle_of(await one.started(name))[1] == supervisor
    assert after.stdout == before.stdout
    assert after.stderr.split()[0] == str(one.state / "work" / "c")
    assert int(after.stderr.split()[1]) == 3, "the shell, ps and wc"


def test_nothing_of_a_task_reaches_the_next_one_of_its_supervisor(tmp_path: Path) -> None:
    _no_leak(tmp_path)


# --- how tasks are ended -------------------------------------------------------------------------


@with_bench
async def _stop(one: Bench) -> None:
    one.driver.start(shell("a", "trap 'echo bye; exit 0' TERM; echo up; sleep 60 & wait"))
    log = LogFile(one.state / "logs", "a", "stdout")
    await soon(log.size)
    log.close()
    one.driver.stop("a")
    fact = await one.over("a")
    assert isinstance(fact, Exited)
    assert (fact.status, fact.why, fact.stdout) == (0, "stopped", "up\nbye\n")


def test_stop_is_a_term_that_the_task_may_answer(tmp_path: Path) -> None:
    _stop(tmp_path)


@with_bench
async def _kill(one: Bench) -> None:
    one.driver.start(shell("a", "trap '' TERM; echo up; while :; do sleep 60; done"))
    log = LogFile(one.state / "logs", "a", "stdout")
    await soon(log.size)
    log.close()
    one.driver.stop("a")
    one.driver.stop("a")
    fact = await one.over("a")
    assert isinstance(fact, Exited)
    assert (fact.status, fact.why) == (-signal.SIGKILL, "stopped")
    assert fact.ran is not None
    assert fact.ran >= 0.2


def test_who_ignores_term_is_killed_after_the_grace(tmp_path: Path) -> None:
    _kill(tmp_path)


@with_bench
async def _at_once(one: Bench) -> None:
    one.driver.start(entry("a", "sleep", "60"))
    one.driver.stop("a")
    fact = await one.over("a")
    assert isinstance(fact, Exited)
    assert fact.why == "stopped"


def test_a_stop_right_behind_the_start_is_not_lost(tmp_path: Path) -> None:
    _at_once(tmp_path)


@with_bench
async def _timeout(one: Bench) -> None:
    fact = await one.ran(entry("a", "sleep", "60", timeout=0.2))
    assert (fact.status, fact.why) == (-signal.SIGTERM, "timeout")
    assert fact.ran is not None
    assert 0.2 <= fact.ran < 5


def test_a_task_that_runs_too_long_is_ended(tmp_path: Path) -> None:
    _timeout(tmp_path)


@with_bench
async def _no_limit_is_too_long(one: Bench) -> None:
    for number, seconds in enumerate((30 * 86400.0, 366 * 86400.0, 1e300)):
        fact = await one.ran(shell(f"a{number}", "exit 3", timeout=seconds, grace=seconds))
        assert (fact.status, fact.why) == (3, "")
        one.driver.start(shell(f"b{number}", UNTIL_TERM, timeout=seconds, grace=seconds))
        log = LogFile(one.state / "logs", f"b{number}", "stdout")
        await soon(log.size)
        log.close()
        one.driver.stop(f"b{number}")
        stopped = await one.over(f"b{number}")
        assert isinstance(stopped, Exited), stopped
        assert (stopped.status, stopped.why) == (4, "stopped")


#: Answers TERM after a moment in which its grace runs.
UNTIL_TERM = "trap 'sleep 0.05; exit 4' TERM; echo up; sleep 60 & wait"


def test_no_timeout_and_no_grace_is_too_long_to_be_waited_for(tmp_path: Path) -> None:
    _no_limit_is_too_long(tmp_path)


@with_bench
async def _nothing_outlives(one: Bench) -> None:
    pids = one.state / "pids"
    escape = f"echo $$ >> {pids}; exec sleep 60"
    script = f"""
        sh -c '{escape}' &
        setsid sh -c '{escape}' &
        setsid sh -c 'setsid sh -c "{escape}" & {escape}' &
        while [ $(wc -l < {pids}) -lt 4 ]; do sleep 0.01; done
    """
    pids.touch()
    assert (await one.ran(shell("a", script))).status == 0
    left = [int(line) for line in pids.read_text().split()]
    assert len(left) == 4
    assert not any(alive(pid) for pid in left)


def test_nothing_of_a_task_outlives_it_not_even_in_sessions_of_its_own(tmp_path: Path) -> None:
    _nothing_outlives(tmp_path)


# --- output --------------------------------------------------------------------------------------


@with_bench
async def _flood(one: Bench) -> None:
    size = 60 << 20
    fact = await one.ran(shell("a", f"head -c {size} /dev/zero | tr '\\0' x; printf end >&2"))
    assert (fact.stdout_size, fact.stderr) == (size, "end")
    assert len(fact.stdout) == TAIL
    files = sorted((one.state / "logs").glob("a.stdout.*"))
    assert sum(file.stat().st_size for file in files) <= 40 << 20
    log = LogFile(one.state / "logs", "a", "stdout")
    offset, data = log.read(0, 100)
    assert offset == int(files[0].name.rsplit(".", 1)[1]) > 0
    assert data == b"x" * 100
    assert log.size() == size
    log.close()


def test_a_talkative_task_keeps_its_last_megabytes_with_true_offsets(tmp_path: Path) -> None:
    _flood(tmp_path)


# --- deaths --------------------------------------------------------------------------------------


def test_a_restarted_agent_finds_tasks_and_the_exit_codes_it_missed(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = Bench(tmp_path)
        first.open()
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        first.driver.start(shell("ends", f"read x < {fifo}; echo $x; exit 7"))
        first.driver.start(entry("stays", "sleep", "60"))
        handles = [await first.started(name) for name in ("ends", "stays")]
        first.driver.close()
        fifo.write_text("go\n")
        _, supervisor = handle_of(handles[0])
        await soon(lambda: not alive(supervisor))
        second = Bench(tmp_path)
        second.open(entry("ends", handle=handles[0].handle), entry("stays"), entry("never"))
        fact = await second.over("ends")
        assert isinstance(fact, Exited)
        assert (fact.status, fact.stdout) == (7, "go\n")
        assert second.of("stays", Started) == [handles[1]]
        assert second.of("never", NeverStarted)
        second.driver.stop("stays")
        fact = await second.over("stays")
        assert isinstance(fact, Exited)
        assert fact.why == "stopped"
        second.driver.close()
        await gone(tmp_path)

    asyncio.run(scenario())


@with_bench
async def _spawner_killed(one: Bench) -> None:
    fifo = one.state / "fifo"
    os.mkfifo(fifo)
    one.driver.start(shell("a", f"read x < {fifo}; exit 7"))
    one.driver.start(entry("b", "sleep", "60"))
    pid, supervisor = handle_of(await one.started("a"))
    await one.started("b")
    os.kill(spawner_of(supervisor), signal.SIGKILL)
    assert (await one.ran(entry("c", "true"))).status == 0
    assert alive(pid)
    await asyncio.to_thread(fifo.write_text, "go\n")
    fact = await one.over("a")
    assert isinstance(fact, Exited)
    assert fact.status == 7
    one.driver.stop("b")
    fact = await one.over("b")
    assert isinstance(fact, Exited)
    assert fact.why == "stopped"


def test_tasks_survive_the_spawner_and_another_takes_over(tmp_path: Path) -> None:
    _spawner_killed(tmp_path)


@with_bench
async def _spawner_killed_amid_starts(one: Bench) -> None:
    one.driver.start(entry("first", "sleep", "60"))
    _, supervisor = handle_of(await one.started("first"))
    names = [f"e{number}" for number in range(100)]
    for name in names:
        one.driver.start(shell(name, f"echo x >> {one.state}/begun.{name}"))
    os.kill(spawner_of(supervisor), signal.SIGKILL)
    for name in names:
        fact = await one.over(name)
        count = (one.state / f"begun.{name}").exists()
        assert isinstance(fact, NeverStarted) <= (not count), "what ran is not called unstarted"
    for name in names:
        begun = one.state / f"begun.{name}"
        assert not begun.exists() or begun.read_text() == "x\n"
    one.driver.stop("first")
    await one.over("first")


def test_a_spawner_killed_amid_starts_starts_nothing_twice(tmp_path: Path) -> None:
    _spawner_killed_amid_starts(tmp_path)


@with_bench
async def _supervisor_killed(one: Bench) -> None:
    pids = one.state / "pids"
    script = f"setsid sh -c 'echo $$ > {pids}; exec sleep 60' & sleep 60"
    one.driver.start(shell("a", script))
    pid, supervisor = handle_of(await one.started("a"))
    await soon(lambda: pids.exists() and pids.read_text().strip())
    os.kill(supervisor, signal.SIGKILL)
    assert isinstance(await one.over("a"), Vanished)
    assert not alive(pid)
    assert not alive(int(pids.read_text()))
    assert (await one.ran(entry("b", "true"))).status == 0


def test_the_task_of_a_killed_supervisor_is_killed_with_all_it_started(tmp_path: Path) -> None:
    _supervisor_killed(tmp_path)


@with_bench
async def _all_killed(one: Bench) -> None:
    one.driver.start(entry("a", "sleep", "60"))
    started = await one.started("a")
    pid, supervisor = handle_of(started)
    one.driver.close()
    os.kill(spawner_of(supervisor), signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    await soon(lambda: not alive(supervisor))
    again = Bench(one.state)
    again.open(entry("a", handle=started.handle))
    assert isinstance(await again.over("a"), Vanished)
    await soon(lambda: not alive(pid))
    again.driver.close()
    (one.state / "spawner.sock").unlink(missing_ok=True)


def test_a_task_that_lost_everyone_is_ended_and_called_unknown(tmp_path: Path) -> None:
    _all_killed(tmp_path)


def test_what_a_task_that_lost_everyone_began_in_sessions_of_its_own_is_ended_too(
    tmp_path: Path,
) -> None:
    """Also below a directory that has two names."""
    (tmp_path / "real").mkdir()
    (state := tmp_path / "state").symlink_to("real")

    async def scenario() -> None:
        one = Bench(state)
        one.open()
        one.driver.start(shell("a", "HOME=/ setsid sleep 60 & echo $! > pid; wait"))
        started = await one.started("a")
        _, supervisor = handle_of(started)
        await soon(lambda: (file := state / "work/a/pid").exists() and file.read_text())
        detached = int((state / "work/a/pid").read_text())
        one.driver.close()
        os.kill(spawner_of(supervisor), signal.SIGKILL)
        os.kill(supervisor, signal.SIGKILL)
        await soon(lambda: not alive(supervisor))
        again = Bench(state)
        again.open(entry("a", handle=started.handle))
        assert isinstance(await again.over("a"), Vanished)
        assert not alive(detached)
        again.driver.close()
        await gone(state)

    asyncio.run(scenario())


@pytest.mark.parametrize("where", ["cd / && exec", "HOME=/ exec"])
def test_a_task_that_lost_everyone_before_its_handle_was_saved_is_ended_too(
    tmp_path: Path, where: str
) -> None:
    async def scenario() -> None:
        task = shell("a", f"sleep 60 & {where} sleep 60")
        one, pid, supervisor = await orphaned(tmp_path, task)
        family = [pid, *pids_below(pid)]
        await soon(lambda: spawners_and_supervisors(tmp_path)[0])  # The journal told of the task.
        spawner = spawner_at(tmp_path)
        one.driver.close()
        os.kill(spawner, signal.SIGKILL)  # It may have ended: it has nothing to do.
        os.kill(supervisor, signal.SIGKILL)
        await soon(lambda: not alive(supervisor))
        again = Bench(tmp_path)
        again.open(task)
        assert isinstance(await again.over("a"), Vanished)
        await soon(lambda: not any(map(alive, family)))
        again.driver.close()
        await gone(tmp_path)

    asyncio.run(scenario())


def test_a_record_that_was_cut_short_is_passed_over_and_harms_no_other(tmp_path, caplog):
    begun = b"".join(f"\nbegun\0{name}\x001\n".encode() for name in "abc")
    whole = [
        f"\nexited\0{name}\0{status}\0\x000.100000\x000\x000\n".encode()
        for status, name in enumerate("abc")
    ]

    async def scenario() -> None:
        (tmp_path / "exits").mkdir()
        # A full disk took the beginning of the second, and then there was room again.
        (tmp_path / "exits" / "1").write_bytes(begun + whole[0] + whole[1][:-14] + whole[2])
        (tmp_path / "exits" / "2").write_bytes(b"exited\0d\x000\0\0" + whole[2][1:])
        one = Bench(tmp_path)
        one.open(*(entry(name, "true") for name in "abc"))
        assert [fact.status for name in "ac" for fact in one.of(name, Exited)] == [0, 2]
        assert isinstance(await one.over("b"), Vanished)
        for kept in ({"a"}, {"a"}, set()):
            one.driver.tidy(kept)
        assert len(list((tmp_path / "exits").iterdir())) == 1, "that of the living spawner"
        one.driver.close()
        await gone(tmp_path)

    asyncio.run(scenario())
    assert caplog.text.count("cut short: b'exited\\x00b") == 1


def test_what_a_spawner_said_before_it_died_amid_attaching_is_told(tmp_path: Path) -> None:
    exited = b"\0".join((b"exited", b"a", b"7", b"", b"0.100000", b"0", b"0", b"", b""))

    def die_amid_sync(listener: socket.socket) -> None:
        link, _ = listener.accept()
        with listener, link:
            link.send(b"hello\0" + VERSION)
            assert link.recv(100) == b"sync\0attach"
            link.send(exited)

    async def scenario() -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(tmp_path / "spawner.sock"))
        listener.listen()
        dying = asyncio.create_task(asyncio.to_thread(die_amid_sync, listener))
        await asyncio.sleep(0)
        one = Bench(tmp_path)
        one.open(entry("a"))
        await dying
        assert [fact.status for fact in one.of("a", Exited)] == [7]
        one.driver.close()
        await gone(tmp_path)

    asyncio.run(scenario())


@asynccontextmanager
async def spawner_that_may_kill_only_its_own(state: Path) -> AsyncIterator[socket.socket]:
    """As the agent of a user who is not root has one, though here tasks may become another's."""
    (state / "exits").mkdir()
    for directory in ("work", "logs"):
        (state / directory).mkdir()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, (state / "spawner.log").open("wb") as complaints:
        spawner = await asyncio.create_subprocess_exec(
            *("setpriv", "--bounding-set", "-kill", sys.executable, "-I", "-S"),
            *(str(PROGRAM), str(state), str(theirs.fileno())),
            pass_fds=(theirs.fileno(),),
            stderr=complaints,
        )
        await soon((state / "spawner.sock").exists)
        yield ours
    await spawner.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of another user")
def test_a_process_that_may_not_be_killed_holds_up_nobody(tmp_path: Path) -> None:
    """As after ``sudo program &``."""

    async def scenario() -> None:
        pids = tmp_path / "pids"
        other = "setpriv --reuid 65534 --regid 65534 --clear-groups"
        stray = f"setsid {other} sh -c 'echo $$; exec sleep 600' >> {pids} &"
        # It tells its pid when it is the other user's.
        leave = f"{stray} until [ $(wc -l < {pids}) -ge $0 ]; do sleep 0.01; done"
        pids.touch()
        try:
            async with (
                spawner_that_may_kill_only_its_own(tmp_path) as first_link,
                bench(tmp_path) as one,
            ):
                first_link.close()
                one.driver.start(entry("ends", "sh", "-c", leave, "1"))
                assert isinstance(fact := await one.over("ends"), Exited)
                assert fact.status == 0
                one.driver.start(entry("killed", "sh", "-c", f"{leave}; sleep 60", "2"))
                _, supervisor = handle_of(await one.started("killed"))
                await soon(lambda: len(pids.read_text().split()) == 2)
                os.kill(supervisor, signal.SIGKILL)
                assert isinstance(await one.over("killed"), Vanished)
                assert (await one.ran(shell("next", "exit 3"))).status == 3
                assert all(alive(int(pid)) for pid in pids.read_text().split())
        finally:
            for pid in pids.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        assert (tmp_path / "spawner.log").read_text() == ""

    asyncio.run(scenario())


async def orphaned(state: Path, task: Entry) -> tuple[Bench, int, int]:
    """A driver whose task runs, and whose predecessor and spawner died before its handle was saved.

    With the pids of the task and of its supervisor.
    """
    first = Bench(state)
    first.open()
    first.driver.start(task)
    pid, supervisor = handle_of(await first.started(task.execution))
    first.driver.close()
    spawner = spawner_of(supervisor)
    os.kill(spawner, signal.SIGKILL)
    await soon(lambda: not alive(spawner))
    second = Bench(state)
    second.open(task)
    await second.started(task.execution)
    return second, pid, supervisor


def test_a_task_is_stopped_without_its_spawner_and_without_its_handle(tmp_path: Path) -> None:
    async def scenario() -> None:
        one, _, _ = await orphaned(tmp_path, entry("a", "sleep", "60"))
        one.driver.stop("a")
        fact = await one.over("a")
        assert isinstance(fact, Exited)
        assert fact.why == "stopped"
        one.driver.close()
        await gone(tmp_path)

    asyncio.run(scenario())


def test_a_spawner_whose_directory_is_removed_stops_its_tasks_and_ends(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()

    async def run() -> None:
        one = Bench(state)
        one.open()
        one.driver.start(entry("a", "sleep", "1000"))
        pid, supervisor = handle_of(await one.started("a"))
        spawner = spawner_of(supervisor)
        one.driver.close()
        shutil.rmtree(state)
        await soon(lambda: not alive(pid) and not alive(spawner), within=20)

    asyncio.run(run())


def test_a_journal_is_kept_until_what_it_tells_is_accounted_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        one, pid, supervisor = await orphaned(tmp_path, entry("a", "sleep", "60"))
        os.kill(pid, signal.SIGTERM)
        await soon(lambda: not alive(supervisor))
        one.driver.tidy({"a"})
        fact = await one.over("a")
        assert isinstance(fact, Exited), fact
        assert fact.status == -signal.SIGTERM
        one.driver.close()
        await gone(tmp_path)

    asyncio.run(scenario())


def test_what_ended_on_a_full_disk_without_an_agent_is_unknown_not_unstarted(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        first = Bench(tmp_path)
        first.open()
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        first.driver.start(shell("a", f"read x < {fifo}; exit 7"))
        _, supervisor = handle_of(await first.started("a"))
        fill_the_disk_of(supervisor)
        first.driver.close()
        await asyncio.to_thread(fifo.write_text, "go\n")
        await soon(lambda: not alive(supervisor))
        second = Bench(tmp_path)
        second.open(entry("a"))
        assert isinstance(fact := await second.over("a"), Vanished), fact
        second.driver.close()
        await gone(tmp_path)

    asyncio.run(scenario())


def fill_the_disk_of(pid: int) -> None:
    """No file takes another byte of that process, and of those that it forks from now on."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))


@with_bench
async def _end_not_recorded(one: Bench) -> None:
    supervisor = await idle_after(one, "a")
    fifo = one.state / "fifo"
    os.mkfifo(fifo)
    one.driver.start(shell("b", f"read x < {fifo}; exit 7"))
    assert handle_of(await one.started("b"))[1] == supervisor
    fill_the_disk_of(supervisor)
    await asyncio.to_thread(fifo.write_text, "go\n")
    assert isinstance(fact := await one.over("b"), Exited)
    assert fact.status == 7
    await one.ran(entry("c", "true"))
    assert handle_of(await one.started("c"))[1] != supervisor
    await soon(lambda: not alive(supervisor))


def test_a_supervisor_that_could_not_record_an_end_serves_nobody_else(tmp_path: Path) -> None:
    _end_not_recorded(tmp_path)


def test_a_task_whose_beginning_cannot_be_recorded_is_not_started_and_may_be_tried_again(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        first = Bench(tmp_path)
        first.open()
        spawner = spawner_at(tmp_path)
        fill_the_disk_of(spawner)
        # Neither by a mark on disk nor by an end in the journal could it ever be found again.
        first.driver.start(shell("a", f"mkdir {tmp_path}/ran"))
        assert isinstance(fact := await first.over("a"), NotStarted)
        assert fact.retryable
        assert "journal" in fact.message
        assert os.strerror(errno.EFBIG) in fact.message
        first.driver.close()
        await gone(tmp_path)
        async with bench(tmp_path) as second:
            again = await second.ran(shell("a", "exit 7"))
            assert again.status == 7
        assert not (tmp_path / "ran").exists()

    asyncio.run(scenario())


def test_a_beginning_that_was_recorded_in_part_starts_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as one:
            [journal] = (tmp_path / "exits").iterdir()
            limit = journal.stat().st_size + 6
            resource.prlimit(spawner_at(tmp_path), resource.RLIMIT_FSIZE, (limit, limit))
            one.driver.start(shell("a", f"mkdir {tmp_path}/ran"))
            assert isinstance(fact := await one.over("a"), NotStarted)
            assert os.strerror(errno.ENOSPC) in fact.message
            assert journal.stat().st_size == limit
            assert not (tmp_path / "ran").exists()

    asyncio.run(scenario())


def test_a_task_that_removes_its_home_is_not_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        removed = tmp_path / "removed"
        task = shell("a", f'rm -rf "$HOME"; mkdir {removed}; sleep 60')
        first = Bench(tmp_path)
        first.open()
        first.driver.start(task)
        pid, supervisor = handle_of(await first.started("a"))
        await soon(removed.exists)
        assert not (tmp_path / "work" / "a").exists()
        first.driver.close()
        os.kill(spawner := spawner_of(supervisor), signal.SIGKILL)
        await soon(lambda: not alive(spawner))
        # Its handle was never saved.
        second = Bench(tmp_path)
        second.open(entry("a"))
        assert second.of("a", Started)
        os.kill(supervisor, signal.SIGKILL)
        assert isinstance(await second.over("a"), Vanished)
        assert second.of("a", NeverStarted) == []
        second.driver.close()
        await gone(tmp_path)
        os.kill(pid, signal.SIGKILL)

    asyncio.run(scenario())


#: Forks a supervisor, and is dead before that begins.
DIES_AT_ONCE = f"""
import os, signal, socket, sys, time
sys.path.append({str(PROGRAM.parent)!r})
import supervisor
ear, mouth = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
journal = os.open("exits/1", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
places, spawner = supervisor.Places(mouth, journal), os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == spawner:
    time.sleep(0.001)
signal.signal(signal.SIGCHLD, supervisor.on_signal)
order = (b"start", b"a", b"", b"1", b"0", b"2", b"/bin/mkdir", b"../../ran")
request = supervisor.Request(b"\\0".join(order))
supervisor.serve(supervisor.Post(request, places, None))
print("over")
"""


def test_a_supervisor_whose_spawner_is_dead_begins_nothing(tmp_path: Path) -> None:
    """Whoever saw that may have called the task unstarted, and started it again."""
    for directory in ("work", "logs", "exits"):
        (tmp_path / directory).mkdir()
    program = [sys.executable, "-c", DIES_AT_ONCE]
    done = subprocess.run(program, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("over\n", "")
    assert not (tmp_path / "ran").exists()
    end = Journals(tmp_path / "exits").find("a")
    assert isinstance(end, list)
    assert end[0] == b"failed"
    assert list((tmp_path / "work").iterdir()) == [], "nothing is in the way of another attempt"


def test_an_order_that_a_dead_spawner_gave_to_an_idle_supervisor_is_not_begun(
    tmp_path: Path,
) -> None:

    async def scenario() -> None:
        first = Bench(tmp_path)
        first.open()
        supervisor = await idle_after(first, "a")
        spawner = spawner_of(supervisor)
        os.kill(supervisor, signal.SIGSTOP)
        first.driver.start(shell("b", f"echo first >> {tmp_path}/ran"))
        # It has handed the order over when it has done the next as well.
        await first.ran(entry("c", "true"))
        first.driver.close()
        os.kill(spawner, signal.SIGKILL)
        await soon(lambda: not alive(spawner))
        second = Bench(tmp_path)
        second.open(entry("b"))
        assert second.of("b", NeverStarted)
        second.facts.clear()
        await second.ran(shell("b", f'echo second >> {tmp_path}/ran; rm -rf "$HOME"'))
        os.kill(supervisor, signal.SIGCONT)
        await soon(lambda: not alive(supervisor))
        assert (tmp_path / "ran").read_text() == "second\n"
        second.driver.close()
        await gone(tmp_path)
        third = Bench(tmp_path)
        third.open(entry("b"))
        assert third.of("b", Exited), "the attempt that failed says nothing about the other"
        third.driver.close()
        await gone(tmp_path)

    asyncio.run(scenario())


@pytest.mark.parametrize("spawner_lives", [True, False])
def test_what_runs_and_the_ledger_does_not_know_is_stopped_before_anything_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spawner_lives: bool
) -> None:
    async def scenario() -> None:
        first = Bench(tmp_path)
        first.open()
        gentle = f"trap 'echo over >> {tmp_path}/order; exit 0' TERM; echo; sleep 60 & wait"
        tasks = {name: shell(name, gentle, grace=60.0) for name in ("a", "b", "known")}
        tasks["hard"] = shell("hard", "trap '' TERM; echo; while :; do sleep 60; done")
        pids = {}
        for name, task in tasks.items():
            first.driver.start(task)
            pids[name], supervisor = handle_of(await first.started(name))
            log = LogFile(tmp_path / "logs", name, "stdout")
            await soon(log.size)
            log.close()
        first.driver.close()
        if not spawner_lives:
            os.kill(spawner := spawner_of(supervisor), signal.SIGKILL)
            await soon(lambda: not alive(spawner))
        second = Bench(tmp_path)
        second.open(tasks["known"])
        second.driver.start(tasks["a"])
        second.driver.start(entry("changed", "true"))
        second.driver.stop("changed")
        assert second.of("changed", NeverStarted), "it is held, so it provably has not begun"
        second.driver.tidy({"known", "next"})
        await second.ran(shell("next", f"echo next >> {tmp_path}/order"))
        assert (tmp_path / "order").read_text() == "over\nover\nnext\n"
        assert not any(alive(pids[name]) for name in ("a", "b", "hard"))
        assert [(f.status, f.why) for f in second.of("a", Exited)] == [(0, "stopped")]
        assert alive(pids["known"])
        await soon(lambda: not (tmp_path / "work" / "a").exists())
        second.driver.stop("known")
        await second.over("known")
        second.driver.close()
        await gone(tmp_path)

    asyncio.run(scenario())
    for name in ("a", "b", "hard"):
        assert f"{name} runs here and the ledger does not know it: stopping it" in caplog.text
        assert f"{name}, which the ledger does not know, has ended" in caplog.text
    assert "known runs here" not in caplog.text


def test_an_emptied_ledger_does_not_make_ended_tasks_run_or_strays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as one:
            await one.ran(entry("a", "true"))
            await one.ran(entry("b", "true"))
            one.driver.close()
            async with bench(tmp_path):
                pass

    asyncio.run(scenario())
    assert "ledger does not know" not in caplog.text


def test_after_a_restart_of_the_machine_nothing_is_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as one:
            await one.ran(shell("told", "exit 7"))
        again = Bench(tmp_path)
        again.open(entry("told"), entry("unclear"), rebooted=True)
        assert isinstance(again.of("told", Exited)[0], Exited)
        assert again.of("unclear", Vanished)
        assert again.of("unclear", NeverStarted) == []
        again.driver.close()
        await gone(tmp_path)

    asyncio.run(scenario())


def test_what_lives_goes_on_when_nobody_knows_of_a_restart_of_the_machine(tmp_path: Path) -> None:
    async def scenario() -> None:
        one, _, supervisor = await orphaned(tmp_path, entry("a", "sleep", "60"))
        one.driver.close()
        again = Bench(tmp_path)
        again.open(entry("a"), rebooted=True)
        assert again.of("a", Started)
        assert again.of("a", Vanished) == []
        os.kill(supervisor, signal.SIGTERM)
        assert isinstance(await again.over("a"), Exited)
        again.driver.close()
        await gone(tmp_path)

    asyncio.run(scenario())


def test_the_agent_has_no_threads_and_no_children_but_the_spawner(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as one:
            before = threading.active_count()
            for number in range(20):
                await one.ran(entry(f"e{number}", "true"))
            assert threading.active_count() == before
            commands = children_of(os.getpid())
            assert len([c for c in commands if str(tmp_path).encode() in c]) == 1
            assert not [c for c in commands if b"true" in c]

    asyncio.run(scenario())


def test_what_a_task_leaves_in_its_directory_goes_when_it_is_discarded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as one:
            await one.ran(shell("a", "mkdir -p x/y; echo z > x/y/z; chmod 500 x/y"))
            work = tmp_path / "work" / "a"
            assert (work / "x/y/z").exists()
            one.driver.discard("a")
            await soon(lambda: not work.exists())
            one.driver.discard("a")

    asyncio.run(scenario())


def test_what_a_task_has_forbidden_or_nested_too_deep_is_removed_without_being_root(
    tmp_path: Path,
) -> None:
    (deep := tmp_path / "deep").mkdir()
    nest = "for i in $(seq 2000); do mkdir d && cd d; done"
    subprocess.run(["sh", "-c", nest], cwd=deep, check=True)
    (tmp_path / "read-only/x/y").mkdir(parents=True)
    (tmp_path / "read-only/x/y/z").touch()
    (tmp_path / "read-only/x/y").chmod(0o500)
    (tmp_path / "read-only/x").chmod(0)
    code = "import sys; from pathlib import Path; from nodes.agent.drivers.cleanup import remove; "
    code += "remove([Path(it) for it in sys.argv[1:]])"
    unprivileged = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    directories = deep, tmp_path / "read-only"
    subprocess.run([*unprivileged, sys.executable, "-c", code, *directories], check=True)
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_removed_shortens_the_life_of_no_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as one:
            (tmp_path / "work" / "stays").touch()
            os.utime(tmp_path / "work" / "stays", (0, 0))
            await one.ran(entry("a", "echo", "a"))
            one.driver.discard("a")
            for _ in range(KEPT + 1):
                one.driver.tidy(set())
            assert LogFile(tmp_path / "logs", "a", "stdout").tail() == b"a\n"

    asyncio.run(scenario())


def test_a_journal_that_nobody_can_write_to_any_more_is_removed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as one:
            await one.ran(entry("a", "true"))
        async with bench(tmp_path) as one:
            journals = sorted((tmp_path / "exits").iterdir())
            assert len(journals) == 2
            one.driver.tidy({"a"})
            assert sorted((tmp_path / "exits").iterdir()) == journals, "one tells of what is kept"
            one.driver.tidy(set())
            assert list((tmp_path / "exits").iterdir()) == journals[1:]

    asyncio.run(scenario())


@with_bench
async def _no_further_journal(one: Bench) -> None:
    exits, away = one.state / "exits", one.state / "away"
    os.truncate(exits / "000000001", 9 << 20)
    exits.rename(away)
    assert (await one.ran(entry("a", "true"))).status == 0
    away.rename(exits)
    assert (await one.ran(entry("b", "true"))).status == 0
    assert len(list(exits.iterdir())) == 2


def test_a_journal_that_no_other_can_follow_goes_on(tmp_path: Path) -> None:
    _no_further_journal(tmp_path)


def test_a_journal_that_is_closed_is_read_once(tmp_path: Path) -> None:
    exited = b"\nexited\0a\x007\0\x000.100000\x000\x000\n"
    exits = Journals(tmp_path)
    journal = tmp_path / "000000001"
    journal.write_bytes(b"\nbegun\0a\x001\n" + exited)
    exits.tidy({"a"})
    # Nobody writes to it any more, so nobody could tell.
    journal.write_bytes(b"\0" * journal.stat().st_size)
    exits.tidy({"a"})
    assert exits.find("a") == exited.strip(b"\n").split(b"\0")
    assert journal.exists()
    exits.tidy(set())
    assert not journal.exists()
    assert exits.find("a") is None


def test_only_the_task_that_a_living_supervisor_began_last_runs(tmp_path: Path) -> None:
    """Its pid may have been that of another supervisor before."""
    journal = tmp_path / "000000001"
    exits = Journals(tmp_path)
    script = f"""
import fcntl, os
journal = open({str(journal)!r}, "ab")
fcntl.lockf(journal, fcntl.LOCK_EX, 1, os.getpid())
for name in "ab":
    os.write(journal.fileno(), f"\\nbegun\\0{{name}}\\0{{os.getpid()}}\\n".encode())
print(flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert list(exits.running()) == ["b"]
        assert exits.find("a") == Begun(0)
        assert exits.find("b") == Begun(other.pid)
        other.communicate(b"\n")
    assert exits.running() == {}
    assert exits.find("b") == Begun(0)


def test_the_logs_of_what_is_not_acknowledged_are_kept_however_long(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as one:
            await one.ran(shell("a", "echo reason"))
            [log] = (tmp_path / "logs").iterdir()
            os.utime(log, (0, 0))
            one.driver.tidy({"a"})
            assert log.read_text() == "reason\n"
            one.driver.tidy(set())
            assert not log.exists()

    asyncio.run(scenario())


def test_idle_supervision_costs_no_processor_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as one:
            one.driver.start(entry("a", "sleep", "60"))
            _, supervisor = handle_of(await one.started("a"))
            watched = (supervisor, spawner_of(supervisor))

            def ticks() -> int:
                stats = (Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1] for p in watched)
                return sum(int(s.split()[11]) + int(s.split()[12]) for s in stats)

            before, until = ticks(), time.monotonic() + 0.5
            await soon(lambda: time.monotonic() > until)
            assert ticks() - before <= 1
            one.driver.stop("a")
            await one.over("a")

    asyncio.run(scenario())


@with_bench
async def test_a_directory_that_nobody_supervises_is_never_started_in_again(one: Bench) -> None:
    (one.state / "work" / "a").mkdir()
    one.driver.start(entry("a", "true"))
    fact = await one.over("a")
    assert isinstance(fact, Vanished), fact
