"""An agent whose spawner, ledger, disk or link is in trouble: it says so, and recovers."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nodes.agent.drivers.spawner_link import NoSpawner, connect
from nodes.agent.ledger import Ledger
from nodes.agent.machine import boot_id
from nodes.agent.records import Changes, Entry, Stage
from nodes.protocol.messages import Happened, Heartbeat, Hello, Task
from tests.agent.agents import REPOSITORY, Agent, cluster, scenario, spawner_at
from tests.agent.disks import fill, small_disk
from tests.agent.faults.tracing import until
from tests.agent.orchestrator import Orchestrator, bid, run, stop

pytestmark = pytest.mark.processes

DEAF = "its spawner does not answer"


def degraded(o: Orchestrator) -> str | None:
    """Why the node takes no new work, as it has said last."""
    said = [m.degraded for m in o.messages if isinstance(m, Hello | Heartbeat)]
    return said[-1] if said else None


@scenario()
async def test_a_node_whose_spawner_does_not_answer_takes_no_work_until_it_does(
    o: Orchestrator, agent: Agent
) -> None:
    await o.order(bid("held", "true"), run("before", "true"))
    await o.until(lambda: o.final("before") and o.of("held"))
    os.kill(spawner := spawner_at(agent.state), signal.SIGSTOP)
    try:
        await o.until(lambda: degraded(o) == DEAF)
        await o.order(bid("new", "true"), run("held", "true"))
        [new, held] = await o.ended("new", "held")
        assert (new.happened, new.code) == (Happened.DECLINE, "degraded")
        assert new.message == f"this node takes no new work: {DEAF}"
        assert (held.happened, held.code) == (Happened.DECLINE, "degraded")
        await o.cut()
        await o.until(lambda: o.epoch == 2)
        assert degraded(o) == DEAF
    finally:
        os.kill(spawner, signal.SIGCONT)
    await o.until(lambda: degraded(o) == "")
    await o.order(run("after", "true"))
    [after] = await o.ended("after")
    assert after.happened is Happened.COMPLETE


@scenario()
async def test_what_runs_is_stopped_and_told_of_while_the_spawner_does_not_answer(
    o: Orchestrator, agent: Agent
) -> None:
    waits = ("sh", "-c", "until [ -e go ]; do sleep 0.1; done; exit 3")
    await o.order(run("a", "sleep", "60"), run("b", *waits), run("c", "sleep", "60"))
    await o.until(lambda: o.of("a") and o.of("b") and o.of("c"))
    os.kill(spawner := spawner_at(agent.state), signal.SIGSTOP)
    try:
        await o.order(stop("a"))
        await o.until(lambda: degraded(o) == DEAF)
        await o.order(stop("c"))
        (agent.state / "work" / "b" / "go").touch()
        [a, b, c] = await o.ended("a", "b", "c")
    finally:
        os.kill(spawner, signal.SIGCONT)
    assert (a.happened, b.exit_code, c.happened) == (Happened.CANCEL, 3, Happened.CANCEL)
    await o.until(lambda: degraded(o) == "")
    await o.order(run("d", "sleep", "60"), stop("d"))
    await o.ended("d")
    assert len(o.of("a")) == len(o.of("b")) == len(o.of("c")) == 2, "each began and ended once"


@scenario()
async def test_more_tasks_of_a_former_spawner_than_the_agent_may_have_files_open(
    o: Orchestrator, agent: Agent
) -> None:
    names = [f"t{number}" for number in range(40)]
    await o.order(*(run(name, "sleep", "60") for name in names))
    await o.until(lambda: all(map(o.of, names)))
    assert agent.process is not None
    few = len(os.listdir(f"/proc/{agent.process.pid}/fd")) + 20  # noqa: PTH208
    resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, (few, few))
    os.kill(spawner_at(agent.state), signal.SIGKILL)
    await o.order(*map(stop, names))
    ends = await o.ended(*names)
    assert {it.happened for it in ends} == {Happened.CANCEL}
    assert agent.process.returncode is None


@scenario()
async def test_an_agent_that_finds_its_spawner_stopped_names_it_with_the_cure(
    o: Orchestrator, agent: Agent
) -> None:
    await o.order(run("a", "sleep", "60"))
    await o.until(lambda: o.of("a"))
    await agent.end(signal.SIGKILL)
    os.kill(spawner := spawner_at(agent.state), signal.SIGSTOP)
    try:
        await agent.start()
        code, said = await agent.ended()
    finally:
        os.kill(spawner, signal.SIGCONT)
    assert code == 2
    assert f"process {spawner}, is stopped and does not answer" in said
    assert f"`kill -CONT {spawner}`" in said
    assert "Traceback" not in said
    await agent.start()
    await o.order(stop("a"))
    await o.ended("a")


# --- the disk ------------------------------------------------------------------------------------


async def loud(o: Orchestrator, name: str, megabytes: int) -> None:
    """A task that prints so much and then waits; see that it has begun."""
    print_it = f"head -c {megabytes}M /dev/zero; echo done >&2; exec sleep 60"
    await o.order(run(name, "sh", "-c", print_it))
    await o.until(lambda: o.of(name))


def test_an_agent_whose_disk_its_tasks_have_filled_lives_on_and_recovers(tmp_path: Path) -> None:
    async def tell() -> None:
        with small_disk(tmp_path / "state", megabytes=48) as state:
            async with cluster(state) as (o, agent):
                await its_disk_is_filled(o, agent)
                await it_is_killed_on_the_full_disk(o, agent)
                await it_starts_with_what_is_in_reserve(o, agent)
                await it_waits_for_room(o, agent)
                await o.order(stop("a"), stop("b"))
                await o.ended("a", "b")
                await o.until(lambda: degraded(o) == "")
                await o.order(run("after", "true"))
                [after] = await o.ended("after")
                assert after.happened is Happened.COMPLETE
                assert (state / "reserve").exists()

    asyncio.run(tell())


async def its_disk_is_filled(o: Orchestrator, agent: Agent) -> None:
    await o.order(run("old", "head", "-c", "1M", "/dev/zero"))
    await o.ended("old")
    for name in ("a", "b"):
        await loud(o, name, megabytes=30)
    await o.until(lambda: degraded(o) == "its disk is full")
    assert not list((agent.state / "logs").glob("old.*")), "it has ended and is acknowledged"
    assert list((agent.state / "logs").glob("a.*"))
    fill(agent.state)
    await it_declines(o, 200)


async def it_declines(o: Orchestrator, many: int) -> None:
    """Each of so many commits finds room."""
    for number in range(many):
        await o.order(bid(name := f"{o.epoch}.{number}"))
        [new] = await o.ended(name)
        assert (new.happened, new.code) == (Happened.DECLINE, "degraded")


async def it_is_killed_on_the_full_disk(o: Orchestrator, agent: Agent) -> None:
    await agent.end(signal.SIGKILL)
    fill(agent.state)
    await agent.start()
    await o.until(lambda: o.epoch == 2)
    await it_declines(o, 10)


async def it_starts_with_what_is_in_reserve(o: Orchestrator, agent: Agent) -> None:
    assert (await agent.end())[0] == 0
    fill(agent.state)
    assert (agent.state / "reserve").exists()
    await agent.start()
    await o.until(lambda: o.epoch == 3)
    await it_declines(o, 10)
    assert not (agent.state / "reserve").exists()


async def it_waits_for_room(o: Orchestrator, agent: Agent) -> None:
    assert (await agent.end())[0] == 0
    filler = fill(agent.state)
    await agent.start()
    async with asyncio.timeout(20):
        await lines_until(agent, b"there is no room left on the disk; trying on until there is")
    filler.unlink()
    await o.until(lambda: o.epoch == 4)


async def lines_until(agent: Agent, word: bytes) -> bytes:
    """What the agent says up to the line with *word*."""
    assert agent.process is not None
    assert agent.process.stderr is not None
    said = b""
    while word not in said:
        line = await agent.process.stderr.readline()
        assert line, said
        said += line
    return said


# --- what an operator must change ----------------------------------------------------------------


def not_a_directory(state: Path) -> Path:
    state.write_text("")
    return state


def below_a_file(state: Path) -> Path:
    state.write_text("")
    return state / "deeper"


def broken_identity(state: Path) -> Path:
    state.mkdir()
    (state / "identity.json").write_text("{")
    return state


def cut_ledger(state: Path) -> Path:
    enrolled(state)
    ledger = Ledger(state / "ledger.db", 0.0)
    ledger.close()
    os.truncate(state / "ledger.db", 5000)
    return state


def no_place_for_work(state: Path) -> Path:
    enrolled(state)
    (state / "work").write_text("")
    return state


def enrolled(state: Path) -> None:
    state.mkdir()
    (state / "identity.json").write_text('{"node": "n", "credential": "nt_secret"}')


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (not_a_directory, "cannot be used: File exists: "),
        (below_a_file, "cannot be used: Not a directory: "),
        (broken_identity, "identity.json is damaged"),
        (cut_ledger, "is damaged; move it away"),
        (no_place_for_work, "cannot be used: File exists: "),
    ],
)
def test_what_is_wrong_with_the_state_directory_is_one_sentence(
    tmp_path: Path, harm: Callable[[Path], Path], sentence: str
) -> None:
    state = harm(tmp_path / "state")
    code, said = ended(state)
    assert code == 2
    assert sentence in said
    assert str(state) in said
    assert len(said.splitlines()) == 1


def test_a_state_directory_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=2) as disk:
        remount = ["mount", "-o", "remount,ro", str(disk)]
        subprocess.run(remount, check=True)
        code, said = ended(disk / "state")
    assert code == 2
    assert "cannot be used: Read-only file system: " in said
    assert "who runs the agent, must be able to write files there" in said
    assert len(said.splitlines()) == 1


def test_a_spawner_that_cannot_be_started_for_now_is_a_reason_to_try_again(tmp_path: Path) -> None:
    enrolled(state := tmp_path / "state")
    with (state / "spawner.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # As a former one that has not ended yet.
        code, said = ended(state)
    assert code == 4
    assert "the spawner could not be started: another spawner serves this directory" in said
    assert len(said.splitlines()) == 1


def test_a_spawner_that_the_kernel_does_not_start_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "spawner.log").mkdir()
    with pytest.raises(NoSpawner, match=r"^the spawner could not be started: Is a directory$"):
        connect(tmp_path, lambda _: [])


def ended(state: Path) -> tuple[int, str]:
    """How an agent on *state* ends by itself, and what it says."""
    command = [sys.executable, "-m", "nodes.agent", "--server", "http://127.0.0.1:9"]
    done = subprocess.run(
        [*command, "--state-dir", str(state), "--name", "n"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr


# --- an emptied ledger, a flapping link ----------------------------------------------------------


@scenario()
async def test_what_an_emptied_ledger_does_not_know_is_counted_and_stopped_first(
    o: Orchestrator, agent: Agent
) -> None:
    last_words = f"trap 'echo over >> {agent.state}/order; exit' TERM; echo ready; sleep 60 & wait"
    for name in ("a", "b"):
        await o.order(run(name, "sh", "-c", last_words))
        await o.until(lambda name=name: o.of(name))  # type: ignore[misc]
        log = agent.state / "logs" / f"{name}.stdout.{0:015d}"
        await until(log.exists)
    await agent.end(signal.SIGKILL)
    for file in agent.state.glob("ledger.db*"):
        os.truncate(file, 0)
    o.desired.clear()
    await agent.start()
    await o.until(lambda: o.epoch == 2)
    await o.order(run("next", "sh", "-c", f"echo next >> {agent.state}/order"))
    [after] = await o.ended("next")
    assert after.happened is Happened.COMPLETE
    assert (agent.state / "order").read_text() == "over\nover\nnext\n"
    _, said = await agent.end()
    assert "2 tasks run that the ledger does not know" in said
    assert said.count("runs here and the ledger does not know it: stopping it") == 2
    await agent.start()


@scenario()
async def test_a_node_that_waits_for_what_does_not_end_says_so(
    o: Orchestrator, agent: Agent
) -> None:
    stubborn = f"trap '' TERM; echo $$ > {agent.state}/pid; while :; do sleep 60; done"
    await o.order(run("a", "sh", "-c", stubborn, grace=3600.0))
    await o.until(lambda: o.of("a"))
    await until((agent.state / "pid").exists)
    await agent.end(signal.SIGKILL)
    for file in agent.state.glob("ledger.db*"):
        os.truncate(file, 0)
    o.desired.clear()
    await agent.start()
    waits = "it waits for a task to end that its ledger does not know: a"
    await o.until(lambda: degraded(o) == waits)
    await o.order(bid("new"))
    [new] = await o.ended("new")
    assert new.message == f"this node takes no new work: {waits}"
    os.kill(int((agent.state / "pid").read_text()), signal.SIGKILL)
    await o.until(lambda: degraded(o) == "")
    await o.order(run("next", "true"))
    [after] = await o.ended("next")
    assert after.happened is Happened.COMPLETE


@scenario()
async def test_how_a_task_ended_without_an_agent_is_told_also_when_the_ledger_is_lost(
    o: Orchestrator, agent: Agent
) -> None:
    gate, starts = agent.state / "gate", agent.state / "starts"
    waits = f"echo started >> {starts}; until [ -e {gate} ]; do sleep 0.05; done; exit 7"
    await o.order(run("a", "sh", "-c", waits))
    await o.until(lambda: o.of("a"))
    await agent.end(signal.SIGKILL)
    gate.touch()
    await until(lambda: not (agent.state / "spawner.sock").exists(), 20, "the spawner ends")
    os.utime(agent.state / "work" / "a", (0, 0))  # So long ago that nothing else would keep it.
    for file in agent.state.glob("ledger.db*"):
        file.unlink()
    await agent.start()
    [end] = await o.ended("a")
    assert (end.code, end.exit_code) == ("exit-code", 7)
    assert starts.read_text() == "started\n"


@scenario()
async def test_an_older_copy_of_the_ledger_begins_nothing_that_has_run_since(
    o: Orchestrator, agent: Agent
) -> None:
    starts, state = agent.state / "starts", agent.state
    command = ("sh", "-c", f"echo started >> {starts}")
    await o.order(run("a", *command))
    await o.ended("a")
    await until(lambda: not (state / "work" / "a").exists())
    await agent.end()
    await until(lambda: not (state / "spawner.sock").exists(), 20, "the spawner ends")
    for journal in (state / "exits").iterdir():  # As agents do when all it tells is acknowledged.
        journal.unlink()
    about_to_begin = Entry("a", Stage.STARTING, Task("process", command), driver="process")
    copy = Ledger(state / "copy.db", 0.0)
    copy.commit(Changes(entries={"a": about_to_begin}, boot=boot_id()), 0.0)
    copy.close()
    (state / "copy.db").replace(state / "ledger.db")
    reported = len(o.of("a"))
    await agent.start()
    await o.until(lambda: len(o.of("a")) > reported)
    assert [it.code for it in o.of("a")[reported:]] == ["unknown-outcome"]
    await o.order(run("b", "true"))
    await o.ended("b")
    assert starts.read_text() == "started\n"
    _, said = await agent.end()
    assert "the ledger is older than what was last saved here" in said
    await agent.start()


@scenario(heartbeat=0.05)
async def test_a_link_that_breaks_again_and_again_costs_a_line_an_attempt_at_most(
    o: Orchestrator, agent: Agent
) -> None:
    for epoch in range(2, 6):
        await o.cut()
        await o.until(lambda epoch=epoch: o.epoch == epoch, within=60)  # type: ignore[misc]
    _, said = await agent.end()
    assert said.count("not connected") <= o.epoch
    assert len(said.splitlines()) <= o.epoch + 4
    await agent.start()


def test_what_goes_wrong_in_a_supervisor_is_in_the_log_which_is_bounded(tmp_path: Path) -> None:
    for name in ("work", "logs", "exits"):
        (tmp_path / name).mkdir()
    log = tmp_path / "spawner.log"
    link, _, _ = connect(tmp_path, lambda _: [])
    log.write_bytes(b"x" * (2 << 20))
    with link:
        link.setblocking(True)
        for number in range(3):
            link.send(b"start\0%d\0never\0" % number)  # That is no timeout.
            assert link.recv(1 << 16) == b"lost\0%d" % number
    said = log.read_text()
    assert said.count("Traceback") == said.count("could not convert string to float: b'never'") == 3
    assert "xx" not in said
