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
from collections.abc import AsyncIterator, Callable
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
from tests.agent.faults.tracing import spawners_and_supervisors, status, until

pytestmark = pytest.mark.processes


def entry(execution: str, *command: str, **rest: object) -> Entry:
    values = {"task": Task("process", command), "driver": "process", "grace": 0.2, **rest}
    return Entry(execution, Stage.STARTING, **values)  # type: ignore[arg-type]


def shell(execution: str, script: str, **rest: object) -> Entry:
    return entry(execution, "sh", "-c", script, **rest)


class Bench:
    """A driver on its own, and what it has told."""

    def __init__(
        self, state: Path, *interrupted: Entry, rebooted: bool = False, is_older: bool = False
    ) -> None:
        self.state = state
        self.facts: list[Fact] = []
        self._told = asyncio.Event()
        self.driver = ProcessDriver(state, self.tell)
        self.tell(self.driver.open(interrupted, rebooted=rebooted, is_older=is_older))

    def tell(self, facts: list[Fact]) -> None:
        self.facts += facts
        self._told.set()

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

    async def printed(self, execution: str) -> None:
        """Wait for the first bytes of its output."""
        log = LogFile(self.state / "logs", execution, "stdout")
        await until(log.size)
        log.close()

    async def end(self) -> None:
        """With nothing to supervise and nobody connected the spawner ends, too."""
        self.driver.close()
        await until(lambda: not (self.state / "spawner.sock").exists())


@asynccontextmanager
async def bench(state: Path) -> AsyncIterator[Bench]:
    one = Bench(state)
    try:
        yield one
    finally:
        await one.end()


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as one:
        yield one


def handle_of(started: Started) -> tuple[int, int]:
    """The pids of the task and of its supervisor."""
    pid, _, supervisor = started.handle.split(":")
    return int(pid), int(supervisor)


def alive(pid: int) -> bool:
    return status(pid) not in "ZX"


def children_of(pid: int) -> list[bytes]:
    """The command lines of its living children."""
    return [Path(f"/proc/{c}/cmdline").read_bytes() for c in pids_below(pid) if alive(c)]


def pids_below(pid: int) -> list[int]:
    """Its children, each by its parent: the kernel's own list may lack some while others end."""
    return [it.pid for it in psutil.Process(pid).children()]


def spawner_of(supervisor: int) -> int:
    return psutil.Process(supervisor).ppid()


# --- what a task is ------------------------------------------------------------------------------


async def test_exit_codes_and_signals_are_told_apart(one: Bench) -> None:
    assert (await one.ran(entry("a", "true"))).status == 0
    assert (await one.ran(shell("b", "exit 3"))).status == 3
    assert (await one.ran(shell("c", "kill -SEGV $$"))).status == -signal.SIGSEGV


async def test_the_end_of_both_outputs_comes_with_the_end_of_the_task(one: Bench) -> None:
    fact = await one.ran(shell("a", "printf 'h\\303\\251\\000llo\\n'; echo bad >&2"))
    assert (fact.stdout, fact.stdout_size) == ("héllo\n", 8)
    assert (fact.stderr, fact.stderr_size) == ("bad\n", 4)
    assert fact.ran is not None
    assert 0 < fact.ran < 5


async def test_a_task_gets_a_clean_environment_and_a_directory_of_its_own(one: Bench) -> None:
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


async def test_what_cannot_be_executed_was_not_started_and_says_why(one: Bench) -> None:
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
    await until(lambda: list((one.state / "work").iterdir()) == [])


async def test_a_command_that_is_too_long_hurts_only_itself(one: Bench) -> None:
    one.driver.start(entry("a", "true", "x" * 200_000))
    assert isinstance(fact := await one.over("a"), NotStarted)
    assert "too long" in fact.message
    one.driver.start(entry("b", "true", *["x" * 100_000] * 30))
    assert isinstance(fact := await one.over("b"), NotStarted)
    assert "too much" in fact.message
    assert (await one.ran(entry("c", "true"))).status == 0


async def test_three_hundred_tasks_at_once_all_tell_their_own_exit_code(one: Bench) -> None:
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
    await until(lambda: list((one.state / "work").iterdir()) == [])


# --- supervisors that serve again ----------------------------------------------------------------


async def idle_after(one: Bench, execution: str) -> int:
    """The pid of a supervisor that has run a task and now waits for another."""
    await one.ran(entry(execution, "true"))
    _, supervisor = handle_of(await one.started(execution))
    # It goes home before it says that it is free, and sleeps only after that.
    await until(lambda: is_asleep(supervisor, one.state))
    return supervisor


def is_asleep(pid: int, directory: Path) -> bool:
    return status(pid) == "S" and Path(f"/proc/{pid}/cwd").samefile(directory)


async def test_a_supervisor_that_is_done_serves_the_next_task(one: Bench) -> None:
    first = await idle_after(one, "a")
    for number in range(5):
        assert await idle_after(one, f"e{number}") == first


async def test_a_supervisor_that_served_many_tasks_makes_room_for_a_fresh_one(one: Bench) -> None:
    first = await idle_after(one, "first")
    for number in range(TASKS - 2):
        await idle_after(one, f"e{number}")
    await one.ran(entry("last", "true"))
    assert handle_of(await one.started("last"))[1] == first
    await until(lambda: not alive(first))


async def test_a_supervisor_ends_after_anything_unusual(one: Bench) -> None:
    for command, rest in (
        (("no-such-program",), {}),
        (("sleep", "60"), {"timeout": 0.1}),
    ):
        supervisor = await idle_after(one, f"before-{command[0]}")
        one.driver.start(entry(command[0], *command, **rest))
        await one.over(command[0])
        await until(lambda pid=supervisor: not alive(pid))
    supervisor = await idle_after(one, "before-stop")
    one.driver.start(entry("stopped", "sleep", "60"))
    one.driver.stop("stopped")
    assert handle_of(await one.started("stopped"))[1] == supervisor
    fact = await one.over("stopped")
    assert isinstance(fact, Exited)
    assert fact.why == "stopped"
    await until(lambda: not alive(supervisor))


async def test_so_many_supervisors_wait_for_tasks_and_none_for_long(one: Bench) -> None:
    names = [f"e{number}" for number in range(70)]
    for name in names:
        one.driver.start(entry(name, "sleep", "0.5"))
    supervisors = {handle_of(await one.started(name))[1] for name in names}
    assert len(supervisors) == len(names), "each serves one task at a time"
    for name in names:
        await one.over(name)
    await until(lambda: len([pid for pid in supervisors if alive(pid)]) == 64)
    await until(lambda: not any(alive(pid) for pid in supervisors))


async def test_idle_supervisors_end_with_the_spawner_that_nobody_needs(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        supervisor = await idle_after(one, "a")
    assert not alive(supervisor)


async def test_killing_an_idle_supervisor_harms_nothing(one: Bench) -> None:
    for number, name in enumerate((signal.SIGKILL, signal.SIGTERM)):
        supervisor = await idle_after(one, f"a{number}")
        os.kill(supervisor, name)
        assert (await one.ran(shell(f"b{number}", "exit 3"))).status == 3
        assert not alive(supervisor)
    assert [fact for fact in one.facts if isinstance(fact, Vanished)] == []


async def test_an_idle_supervisor_ends_when_the_spawner_is_killed(one: Bench) -> None:
    supervisor = await idle_after(one, "a")
    os.kill(spawner_of(supervisor), signal.SIGKILL)
    await until(lambda: not alive(supervisor))
    assert (await one.ran(entry("b", "true"))).status == 0


async def test_a_reused_supervisor_finishes_its_task_without_the_spawner_and_ends(
    one: Bench,
) -> None:
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
    await until(lambda: not alive(supervisor))


async def test_a_reused_supervisor_that_is_killed_takes_only_its_own_task_along(one: Bench) -> None:
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


async def test_a_stop_that_comes_too_late_does_not_stop_the_next_task(one: Bench) -> None:
    for number in range(20):
        # The stop is sent when the task ends or has just ended, the start right behind it.
        one.driver.start(entry(f"b{number}", "true"))
        await one.started(f"b{number}")
        one.driver.stop(f"b{number}")
        await one.over(f"b{number}")
        assert (await one.ran(shell(f"c{number}", "sleep 0.01; exit 3"))).status == 3


async def test_nothing_of_a_task_reaches_the_next_one_of_its_supervisor(one: Bench) -> None:
    supervisor = await idle_after(one, "a")
    # What is open is counted before anything is printed: a log is opened with its first bytes.
    look = "n=$(ls /proc/$PPID/fd | wc -l); echo $n; umask"
    look += "; unset n; env | sort | grep -v -e ^_= -e ^HOME= -e ^PWD="
    before = await one.ran(shell("before", look))
    await until(lambda: is_asleep(supervisor, one.state))
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
    await until(lambda: is_asleep(supervisor, one.state))
    assert not any(alive(int(line)) for line in pids.read_text().split())
    after = await one.ran(shell("c", f"{look}; pwd >&2; ps -o pid= -s $$ | wc -l >&2"))
    for name in ("before", "b", "c"):
        assert handle_of(await one.started(name))[1] == supervisor
    assert after.stdout == before.stdout
    assert after.stderr.split()[0] == str(one.state / "work" / "c")
    assert int(after.stderr.split()[1]) == 3, "the shell, ps and wc"


# --- how tasks are ended -------------------------------------------------------------------------


async def test_stop_is_a_term_that_the_task_may_answer(one: Bench) -> None:
    one.driver.start(shell("a", "trap 'echo bye; exit 0' TERM; echo up; sleep 60 & wait"))
    await one.printed("a")
    one.driver.stop("a")
    fact = await one.over("a")
    assert isinstance(fact, Exited)
    assert (fact.status, fact.why, fact.stdout) == (0, "stopped", "up\nbye\n")


async def test_who_ignores_term_is_killed_after_the_grace(one: Bench) -> None:
    one.driver.start(shell("a", "trap '' TERM; echo up; while :; do sleep 60; done"))
    await one.printed("a")
    one.driver.stop("a")
    one.driver.stop("a")
    fact = await one.over("a")
    assert isinstance(fact, Exited)
    assert (fact.status, fact.why) == (-signal.SIGKILL, "stopped")
    assert fact.ran is not None
    assert fact.ran >= 0.2


async def test_a_stop_right_behind_the_start_is_not_lost(one: Bench) -> None:
    one.driver.start(entry("a", "sleep", "60"))
    one.driver.stop("a")
    fact = await one.over("a")
    assert isinstance(fact, Exited)
    assert fact.why == "stopped"


async def test_a_task_that_runs_too_long_is_ended(one: Bench) -> None:
    fact = await one.ran(entry("a", "sleep", "60", timeout=0.2))
    assert (fact.status, fact.why) == (-signal.SIGTERM, "timeout")
    assert fact.ran is not None
    assert 0.2 <= fact.ran < 5


#: Answers TERM after a moment in which its grace runs.
UNTIL_TERM = "trap 'sleep 0.05; exit 4' TERM; echo up; sleep 60 & wait"


async def test_no_timeout_and_no_grace_is_too_long_to_be_waited_for(one: Bench) -> None:
    for number, seconds in enumerate((30 * 86400.0, 366 * 86400.0, 1e300)):
        fact = await one.ran(shell(f"a{number}", "exit 3", timeout=seconds, grace=seconds))
        assert (fact.status, fact.why) == (3, "")
        one.driver.start(shell(f"b{number}", UNTIL_TERM, timeout=seconds, grace=seconds))
        await one.printed(f"b{number}")
        one.driver.stop(f"b{number}")
        stopped = await one.over(f"b{number}")
        assert isinstance(stopped, Exited), stopped
        assert (stopped.status, stopped.why) == (4, "stopped")


async def test_nothing_of_a_task_outlives_it_not_even_in_sessions_of_its_own(one: Bench) -> None:
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


# --- output --------------------------------------------------------------------------------------


async def test_a_talkative_task_keeps_its_last_megabytes_with_true_offsets(one: Bench) -> None:
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


# --- deaths --------------------------------------------------------------------------------------


async def test_a_restarted_agent_finds_tasks_and_the_exit_codes_it_missed(tmp_path: Path) -> None:
    first = Bench(tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    first.driver.start(shell("ends", f"read x < {fifo}; echo $x; exit 7"))
    first.driver.start(entry("stays", "sleep", "60"))
    handles = [await first.started(name) for name in ("ends", "stays")]
    first.driver.close()
    fifo.write_text("go\n")
    _, supervisor = handle_of(handles[0])
    await until(lambda: not alive(supervisor))
    second = Bench(
        tmp_path, entry("ends", handle=handles[0].handle), entry("stays"), entry("never")
    )
    fact = await second.over("ends")
    assert isinstance(fact, Exited)
    assert (fact.status, fact.stdout) == (7, "go\n")
    assert second.of("stays", Started) == [handles[1]]
    assert second.of("never", NeverStarted)
    second.driver.stop("stays")
    fact = await second.over("stays")
    assert isinstance(fact, Exited)
    assert fact.why == "stopped"
    await second.end()


async def test_tasks_survive_the_spawner_and_another_takes_over(one: Bench) -> None:
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


async def test_a_spawner_killed_amid_starts_starts_nothing_twice(one: Bench) -> None:
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


async def test_the_task_of_a_killed_supervisor_is_killed_with_all_it_started(one: Bench) -> None:
    pids = one.state / "pids"
    script = f"setsid sh -c 'echo $$ > {pids}; exec sleep 60' & sleep 60"
    one.driver.start(shell("a", script))
    pid, supervisor = handle_of(await one.started("a"))
    await until(lambda: pids.exists() and pids.read_text().strip())
    os.kill(supervisor, signal.SIGKILL)
    assert isinstance(await one.over("a"), Vanished)
    assert not alive(pid)
    assert not alive(int(pids.read_text()))
    assert (await one.ran(entry("b", "true"))).status == 0


async def test_a_task_that_lost_everyone_is_ended_and_called_unknown(one: Bench) -> None:
    one.driver.start(entry("a", "sleep", "60"))
    started = await one.started("a")
    pid, supervisor = handle_of(started)
    one.driver.close()
    os.kill(spawner_of(supervisor), signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    await until(lambda: not alive(supervisor))
    again = Bench(one.state, entry("a", handle=started.handle))
    assert isinstance(await again.over("a"), Vanished)
    await until(lambda: not alive(pid))
    again.driver.close()
    (one.state / "spawner.sock").unlink(missing_ok=True)


async def test_what_a_task_that_lost_everyone_began_in_sessions_of_its_own_is_ended_too(
    tmp_path: Path,
) -> None:
    """Also below a directory that has two names."""
    (tmp_path / "real").mkdir()
    (state := tmp_path / "state").symlink_to("real")
    one = Bench(state)
    one.driver.start(shell("a", "HOME=/ setsid sleep 60 & echo $! > pid; wait"))
    started = await one.started("a")
    _, supervisor = handle_of(started)
    await until(lambda: (file := state / "work/a/pid").exists() and file.read_text())
    detached = int((state / "work/a/pid").read_text())
    one.driver.close()
    os.kill(spawner_of(supervisor), signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    await until(lambda: not alive(supervisor))
    again = Bench(state, entry("a", handle=started.handle))
    assert isinstance(await again.over("a"), Vanished)
    assert not alive(detached)
    await again.end()


@pytest.mark.parametrize("where", ["cd / && exec", "HOME=/ exec"])
async def test_a_task_that_lost_everyone_before_its_handle_was_saved_is_ended_too(
    tmp_path: Path, where: str
) -> None:
    task = shell("a", f"sleep 60 & {where} sleep 60")
    one, pid, supervisor = await orphaned(tmp_path, task)
    family = [pid, *pids_below(pid)]
    await until(lambda: spawners_and_supervisors(tmp_path)[0])  # The journal told of the task.
    spawner = spawner_at(tmp_path)
    one.driver.close()
    os.kill(spawner, signal.SIGKILL)  # It may have ended: it has nothing to do.
    os.kill(supervisor, signal.SIGKILL)
    await until(lambda: not alive(supervisor))
    again = Bench(tmp_path, task)
    assert isinstance(await again.over("a"), Vanished)
    await until(lambda: not any(map(alive, family)))
    await again.end()


async def test_a_record_that_was_cut_short_is_passed_over_and_harms_no_other(tmp_path, caplog):
    begun = b"".join(f"\nbegun\0{name}\x001\n".encode() for name in "abc")
    whole = [
        f"\nexited\0{name}\0{status}\0\x000.100000\x000\x000\n".encode()
        for status, name in enumerate("abc")
    ]
    (tmp_path / "exits").mkdir()
    # A full disk took the beginning of the second, and then there was room again.
    (tmp_path / "exits" / "1").write_bytes(begun + whole[0] + whole[1][:-14] + whole[2])
    (tmp_path / "exits" / "2").write_bytes(b"exited\0d\x000\0\0" + whole[2][1:])
    one = Bench(tmp_path, *(entry(name, "true") for name in "abc"))
    assert [fact.status for name in "ac" for fact in one.of(name, Exited)] == [0, 2]
    assert isinstance(await one.over("b"), Vanished)
    for kept in ({"a"}, {"a"}, set()):
        one.driver.tidy(kept)
    assert len(list((tmp_path / "exits").iterdir())) == 1, "that of the living spawner"
    await one.end()
    assert caplog.text.count("cut short: b'exited\\x00b") == 1


async def test_what_a_spawner_said_before_it_died_amid_attaching_is_told(tmp_path: Path) -> None:
    exited = b"\0".join((b"exited", b"a", b"7", b"", b"0.100000", b"0", b"0", b"", b""))

    def die_amid_sync(listener: socket.socket) -> None:
        link, _ = listener.accept()
        with listener, link:
            link.send(b"hello\0" + VERSION)
            assert link.recv(100) == b"sync\0attach"
            link.send(exited)

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "spawner.sock"))
    listener.listen()
    dying = asyncio.create_task(asyncio.to_thread(die_amid_sync, listener))
    await asyncio.sleep(0)
    one = Bench(tmp_path, entry("a"))
    await dying
    assert [fact.status for fact in one.of("a", Exited)] == [7]
    await one.end()


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
        await until((state / "spawner.sock").exists)
        yield ours
    await spawner.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of another user")
async def test_a_process_that_may_not_be_killed_holds_up_nobody(tmp_path: Path) -> None:
    """As after ``sudo program &``."""
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
            await until(lambda: len(pids.read_text().split()) == 2)
            os.kill(supervisor, signal.SIGKILL)
            assert isinstance(await one.over("killed"), Vanished)
            assert (await one.ran(shell("next", "exit 3"))).status == 3
            assert all(alive(int(pid)) for pid in pids.read_text().split())
    finally:
        for pid in pids.read_text().split():
            os.kill(int(pid), signal.SIGKILL)
    assert (tmp_path / "spawner.log").read_text() == ""


async def orphaned(state: Path, task: Entry) -> tuple[Bench, int, int]:
    """A driver whose task runs, and whose predecessor and spawner died before its handle was saved.

    With the pids of the task and of its supervisor.
    """
    first = Bench(state)
    first.driver.start(task)
    pid, supervisor = handle_of(await first.started(task.execution))
    first.driver.close()
    spawner = spawner_of(supervisor)
    os.kill(spawner, signal.SIGKILL)
    await until(lambda: not alive(spawner))
    second = Bench(state, task)
    await second.started(task.execution)
    return second, pid, supervisor


async def test_a_task_is_stopped_without_its_spawner_and_without_its_handle(tmp_path: Path) -> None:
    one, _, _ = await orphaned(tmp_path, entry("a", "sleep", "60"))
    one.driver.stop("a")
    fact = await one.over("a")
    assert isinstance(fact, Exited)
    assert fact.why == "stopped"
    await one.end()


async def test_a_spawner_whose_directory_is_removed_stops_its_tasks_and_ends(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    one = Bench(state)
    one.driver.start(entry("a", "sleep", "1000"))
    pid, supervisor = handle_of(await one.started("a"))
    spawner = spawner_of(supervisor)
    one.driver.close()
    shutil.rmtree(state)
    await until(lambda: not alive(pid) and not alive(spawner), within=20)


async def test_a_journal_is_kept_until_what_it_tells_is_accounted_for(tmp_path: Path) -> None:
    one, pid, supervisor = await orphaned(tmp_path, entry("a", "sleep", "60"))
    os.kill(pid, signal.SIGTERM)
    await until(lambda: not alive(supervisor))
    one.driver.tidy({"a"})
    fact = await one.over("a")
    assert isinstance(fact, Exited), fact
    assert fact.status == -signal.SIGTERM
    await one.end()


async def test_what_ended_on_a_full_disk_and_told_nobody_is_unknown_not_unstarted(
    tmp_path: Path,
) -> None:
    first = Bench(tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    first.driver.start(shell("a", f"read x < {fifo}; exit 7"))
    _, supervisor = handle_of(await first.started("a"))
    fill_the_disk_of(supervisor)
    first.driver.close()
    # It would hear of the end, and tell the next agent that asks soon enough.
    spawner = spawner_of(supervisor)
    os.kill(spawner, signal.SIGKILL)
    await until(lambda: not alive(spawner))
    await asyncio.to_thread(fifo.write_text, "go\n")
    await until(lambda: not alive(supervisor))
    second = Bench(tmp_path, entry("a"))
    assert isinstance(fact := await second.over("a"), Vanished), fact
    await second.end()


def fill_the_disk_of(pid: int) -> None:
    """No file takes another byte of that process, and of those that it forks from now on."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))


async def test_a_supervisor_that_could_not_record_an_end_serves_nobody_else(one: Bench) -> None:
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
    await until(lambda: not alive(supervisor))


async def test_a_task_whose_beginning_cannot_be_recorded_is_not_started_and_may_be_tried_again(
    tmp_path: Path,
) -> None:
    first = Bench(tmp_path)
    spawner = spawner_at(tmp_path)
    fill_the_disk_of(spawner)
    # Neither by a mark on disk nor by an end in the journal could it ever be found again.
    first.driver.start(shell("a", f"mkdir {tmp_path}/ran"))
    assert isinstance(fact := await first.over("a"), NotStarted)
    assert fact.retryable
    assert "journal" in fact.message
    assert os.strerror(errno.EFBIG) in fact.message
    await first.end()
    async with bench(tmp_path) as second:
        again = await second.ran(shell("a", "exit 7"))
        assert again.status == 7
    assert not (tmp_path / "ran").exists()


async def test_a_beginning_that_was_recorded_in_part_starts_nothing(
    one: Bench, tmp_path: Path
) -> None:
    [journal] = (tmp_path / "exits").iterdir()
    limit = journal.stat().st_size + 6
    resource.prlimit(spawner_at(tmp_path), resource.RLIMIT_FSIZE, (limit, limit))
    one.driver.start(shell("a", f"mkdir {tmp_path}/ran"))
    assert isinstance(fact := await one.over("a"), NotStarted)
    assert os.strerror(errno.ENOSPC) in fact.message
    assert journal.stat().st_size == limit
    assert not (tmp_path / "ran").exists()


async def test_a_task_that_removes_its_home_is_not_started_again(tmp_path: Path) -> None:
    removed = tmp_path / "removed"
    task = shell("a", f'rm -rf "$HOME"; mkdir {removed}; sleep 60')
    first = Bench(tmp_path)
    first.driver.start(task)
    pid, supervisor = handle_of(await first.started("a"))
    await until(removed.exists)
    assert not (tmp_path / "work" / "a").exists()
    first.driver.close()
    os.kill(spawner := spawner_of(supervisor), signal.SIGKILL)
    await until(lambda: not alive(spawner))
    # Its handle was never saved.
    second = Bench(tmp_path, entry("a"))
    assert second.of("a", Started)
    os.kill(supervisor, signal.SIGKILL)
    assert isinstance(await second.over("a"), Vanished)
    assert second.of("a", NeverStarted) == []
    await second.end()
    os.kill(pid, signal.SIGKILL)


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
order = (b"start", b"a", b"", b"1", b"0", b"2", b"/bin/mkdir", b"../../ran", b"0")
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


async def test_an_order_that_a_dead_spawner_gave_to_an_idle_supervisor_is_not_begun(
    tmp_path: Path,
) -> None:
    first = Bench(tmp_path)
    supervisor = await idle_after(first, "a")
    spawner = spawner_of(supervisor)
    os.kill(supervisor, signal.SIGSTOP)
    first.driver.start(shell("b", f"echo first >> {tmp_path}/ran"))
    # It has handed the order over when it has done the next as well.
    await first.ran(entry("c", "true"))
    first.driver.close()
    os.kill(spawner, signal.SIGKILL)
    await until(lambda: not alive(spawner))
    second = Bench(tmp_path, entry("b"))
    assert second.of("b", NeverStarted)
    second.facts.clear()
    await second.ran(shell("b", f'echo second >> {tmp_path}/ran; rm -rf "$HOME"'))
    os.kill(supervisor, signal.SIGCONT)
    await until(lambda: not alive(supervisor))
    assert (tmp_path / "ran").read_text() == "second\n"
    await second.end()
    third = Bench(tmp_path, entry("b"))
    assert third.of("b", Exited), "the attempt that failed says nothing about the other"
    await third.end()


@pytest.mark.parametrize("spawner_lives", [True, False])
async def test_what_runs_and_the_ledger_does_not_know_is_stopped_before_anything_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spawner_lives: bool
) -> None:
    first = Bench(tmp_path)
    gentle = f"trap 'echo over >> {tmp_path}/order; exit 0' TERM; echo; sleep 60 & wait"
    tasks = {name: shell(name, gentle, grace=60.0) for name in ("a", "b", "known")}
    tasks["hard"] = shell("hard", "trap '' TERM; echo; while :; do sleep 60; done")
    pids = {}
    for name, task in tasks.items():
        first.driver.start(task)
        pids[name], supervisor = handle_of(await first.started(name))
        await first.printed(name)
    first.driver.close()
    if not spawner_lives:
        os.kill(spawner := spawner_of(supervisor), signal.SIGKILL)
        await until(lambda: not alive(spawner))
    second = Bench(tmp_path, tasks["known"])
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
    await until(lambda: not (tmp_path / "work" / "a").exists())
    second.driver.stop("known")
    await second.over("known")
    await second.end()
    for name in ("a", "b", "hard"):
        assert f"{name} runs here and the ledger does not know it: stopping it" in caplog.text
        assert f"{name}, which the ledger does not know, has ended" in caplog.text
    assert "known runs here" not in caplog.text


async def test_an_emptied_ledger_does_not_make_ended_tasks_run_or_strays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path) as one:
        await one.ran(entry("a", "true"))
        await one.ran(entry("b", "true"))
        one.driver.close()
        async with bench(tmp_path):
            pass
    assert "ledger does not know" not in caplog.text


async def test_a_ledger_that_is_older_than_the_tasks_is_told_how_each_of_them_ended(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as one:
        await one.ran(shell("told", "exit 7"))
        await one.ran(shell("homeless", 'rmdir "$HOME"; exit 8'))
        one.driver.start(entry("gone", "/missing"))
        await one.over("gone")
    orphan, pid, supervisor = await orphaned(tmp_path, entry("lost", "sleep", "60"))
    orphan.driver.close()
    os.kill(supervisor, signal.SIGKILL)
    await until(lambda: not alive(supervisor))
    (tmp_path / "work" / "unclear").mkdir()
    again = Bench(tmp_path, entry("copied"), is_older=True)
    for name, code in (("told", 7), ("homeless", 8)):
        assert [fact.status for fact in again.of(name, Exited)] == [code]
    for name in ("copied", "unclear", "lost"):
        assert isinstance(await again.over(name), Vanished)
    assert again.of("gone", Exited, Vanished) == [], "it never ran"
    assert not alive(pid)
    await again.end()


async def test_after_a_restart_of_the_machine_nothing_is_started_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.ran(shell("told", "exit 7"))
    again = Bench(tmp_path, entry("told"), entry("unclear"), rebooted=True)
    assert isinstance(again.of("told", Exited)[0], Exited)
    assert again.of("unclear", Vanished)
    assert again.of("unclear", NeverStarted) == []
    await again.end()


async def test_what_lives_goes_on_when_nobody_knows_of_a_restart_of_the_machine(
    tmp_path: Path,
) -> None:
    one, _, supervisor = await orphaned(tmp_path, entry("a", "sleep", "60"))
    one.driver.close()
    again = Bench(tmp_path, entry("a"), rebooted=True)
    assert again.of("a", Started)
    assert again.of("a", Vanished) == []
    os.kill(supervisor, signal.SIGTERM)
    assert isinstance(await again.over("a"), Exited)
    await again.end()


async def test_the_agent_has_no_threads_and_no_children_but_the_spawner(
    one: Bench, tmp_path: Path
) -> None:
    before = threading.active_count()
    for number in range(20):
        await one.ran(entry(f"e{number}", "true"))
    assert threading.active_count() == before
    commands = children_of(os.getpid())
    assert len([c for c in commands if str(tmp_path).encode() in c]) == 1
    assert not [c for c in commands if b"true" in c]


async def test_what_a_task_leaves_in_its_directory_goes_when_it_is_discarded(
    one: Bench, tmp_path: Path
) -> None:
    await one.ran(shell("a", "mkdir -p x/y; echo z > x/y/z; chmod 500 x/y"))
    work = tmp_path / "work" / "a"
    assert (work / "x/y/z").exists()
    one.driver.discard("a")
    await until(lambda: not work.exists())
    one.driver.discard("a")


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


async def test_a_directory_that_cannot_be_removed_shortens_the_life_of_no_log(
    one: Bench, tmp_path: Path
) -> None:
    (tmp_path / "work" / "stays").touch()
    os.utime(tmp_path / "work" / "stays", (0, 0))
    await one.ran(entry("a", "echo", "a"))
    one.driver.discard("a")
    for _ in range(KEPT + 1):
        one.driver.tidy(set())
    assert LogFile(tmp_path / "logs", "a", "stdout").tail() == b"a\n"


async def test_a_journal_that_nobody_can_write_to_any_more_is_removed(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.ran(entry("a", "true"))
    async with bench(tmp_path) as one:
        journals = sorted((tmp_path / "exits").iterdir())
        assert len(journals) == 2
        one.driver.tidy({"a"})
        assert sorted((tmp_path / "exits").iterdir()) == journals, "one tells of what is kept"
        one.driver.tidy(set())
        assert list((tmp_path / "exits").iterdir()) == journals[1:]


async def test_a_journal_that_no_other_can_follow_goes_on(one: Bench) -> None:
    exits, away = one.state / "exits", one.state / "away"
    os.truncate(exits / "000000001", 9 << 20)
    exits.rename(away)
    assert (await one.ran(entry("a", "true"))).status == 0
    away.rename(exits)
    assert (await one.ran(entry("b", "true"))).status == 0
    assert len(list(exits.iterdir())) == 2


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


def test_a_record_that_was_cut_within_its_last_number_tells_nothing(tmp_path: Path) -> None:
    ended = b"\nexited\0a\x007\0\x000.100000\x000\x0012345\n"
    failed = b"\nfailed\0b\x0028\0no room\n"
    cut = ended[:-3] + b"\nbegun\0b\x0012345\n"[:-3]
    (tmp_path / "000000001").write_bytes(b"\nbegun\0a\x001\n" + cut + failed)
    exits = Journals(tmp_path)
    assert exits.find("a") == Begun(0)
    assert exits.find("b") == failed.strip(b"\n").split(b"\0")


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


async def test_the_logs_of_what_is_not_acknowledged_are_kept_however_long(
    one: Bench, tmp_path: Path
) -> None:
    await one.ran(shell("a", "echo reason"))
    [log] = (tmp_path / "logs").iterdir()
    os.utime(log, (0, 0))
    one.driver.tidy({"a"})
    assert log.read_text() == "reason\n"
    one.driver.tidy(set())
    assert not log.exists()


async def test_idle_supervision_costs_no_processor_time(one: Bench) -> None:
    one.driver.start(entry("a", "sleep", "60"))
    _, supervisor = handle_of(await one.started("a"))
    watched = (supervisor, spawner_of(supervisor))

    def ticks() -> int:
        stats = (Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1] for p in watched)
        return sum(int(s.split()[11]) + int(s.split()[12]) for s in stats)

    before = ticks()
    await asyncio.sleep(0.5)
    assert ticks() - before <= 1
    one.driver.stop("a")
    await one.over("a")


async def test_a_directory_that_nobody_supervises_is_never_started_in_again(one: Bench) -> None:
    (one.state / "work" / "a").mkdir()
    one.driver.start(entry("a", "true"))
    fact = await one.over("a")
    assert isinstance(fact, Vanished), fact
