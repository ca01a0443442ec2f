"""A secret on a node: in the environment of its task, and nowhere else that stays."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import psutil
import pytest

from nodes.agent.drivers.spawner_link import start_packet
from nodes.agent.effects import Start
from nodes.agent.facts import NeverStarted, Started
from nodes.agent.ledger import Ledger
from nodes.agent.records import Changes, Entry, InMemory, Stage
from nodes.agent.walls import NO_WALLS
from nodes.protocol.messages import Happened, Order, SecretValues, Task, Want
from tests.agent.agents import Agent, scenario
from tests.agent.orchestrator import Orchestrator, bid, run, stop
from tests.agent.test_core import Node

VALUE = "canary-9b1d5a9e77c84f34"
NAMED = {"TOKEN": "secret://token"}


def task(script: str) -> Task:
    return Task("process", ("sh", "-c", script), NAMED)


def start(execution: str, script: str = "true", value: str = VALUE) -> Order:
    return run(execution, task=task(script), secrets=SecretValues({"TOKEN": value}))


def entry() -> Entry:
    secrets = InMemory({"TOKEN": VALUE, "HOME": "not asked for"})
    return Entry("e", Stage.STARTING, task=task("true"), driver="process", secrets=secrets)


def holding(directory: Path, value: str) -> list[Path]:
    """The files below *directory* that have *value* in them."""
    found = []
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and value.encode() in path.read_bytes():
                found.append(path)
    return found


def those_with(value: str) -> list[list[str]]:
    """The command lines of the processes that have *value* in their environment; in none is it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            assert value not in " ".join(process.cmdline())
            if value.encode() in Path(f"/proc/{process.pid}/environ").read_bytes():
                found.append(process.cmdline())
    return found


def test_the_ledger_has_the_reference_and_nothing_of_the_value(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", 0.0)
    ledger.commit(Changes(entries={"e": entry()}), 0.0)
    [found] = ledger.saved().entries
    ledger.close()
    assert (found.task, found.secrets) == (task("true"), None)
    assert found.lacks is not None
    assert holding(tmp_path, VALUE) == []
    assert holding(tmp_path, "secret://token") != []


def test_nothing_that_prints_an_order_or_an_entry_shows_the_value() -> None:
    assert VALUE not in f"{start('e')} {entry()!r}"
    assert "TOKEN" in repr(start("e"))


def test_a_supervisor_is_told_which_variables_are_secret(tmp_path: Path) -> None:
    fields = start_packet(entry(), task("true"), tmp_path / "e", NO_WALLS).split("\0")
    at = fields.index("true") + 1
    assert fields[at : at + 2] == ["1", f"TOKEN={VALUE}"]
    assert f"HOME={tmp_path / 'e'}" in fields  # Only what the task names.


def test_the_core_has_the_value_until_the_task_has_begun() -> None:
    node = Node()
    node.order(Want.BID, task=task("true"))
    [effect] = node.order(Want.RUN, task=task("true"), secrets=SecretValues({"TOKEN": VALUE}))
    assert isinstance(effect, Start)
    # The spawner died before it had it: the same again.
    assert node.core.observe(NeverStarted("e")) == [effect]
    assert effect.entry.secret_values == {"TOKEN": VALUE}
    node.core.observe(Started("e", "handle"))
    assert node.core.entries["e"].secrets is None


@pytest.mark.processes
@scenario()
async def test_the_value_is_in_the_environment_of_the_task_and_masked_in_both_streams(
    o: Orchestrator, agent: Agent
) -> None:
    await o.order(bid("e", task=task("true")))
    await o.until(lambda: o.of("e"))
    await o.order(start("e", 'echo "<$TOKEN>"; echo "$TOKEN" >&2; exit ${#TOKEN}'))
    [final] = await o.ended("e")
    assert (final.stdout, final.stderr) == ("<***>\n", "***\n")
    assert final.exit_code == len(VALUE)
    assert holding(agent.state, VALUE) == []


@pytest.mark.processes
@scenario()
async def test_a_value_that_comes_in_pieces_is_masked(o: Orchestrator, agent: Agent) -> None:
    script = 'printf "%.9s" "$TOKEN"; sleep 0.3; printf "%s\\n" "${TOKEN#?????????}"'
    await o.order(start("e", script))
    [final] = await o.ended("e")
    assert (final.stdout, final.stdout_size) == ("***\n", 4)
    assert holding(agent.state, VALUE) == []


@pytest.mark.processes
@scenario()
async def test_while_it_runs_only_the_task_has_it(o: Orchestrator, agent: Agent) -> None:
    await o.order(start("e", "echo begun; exec sleep 60"))
    await o.until(lambda: any(it.happened is Happened.START for it in o.of("e")))
    having = those_with(VALUE)
    assert having == [["sleep", "60"]]
    assert holding(agent.state, VALUE) == []
    await o.order(stop("e"))
    await o.ended("e")


@pytest.mark.processes
@scenario()
async def test_the_next_task_of_a_supervisor_has_nothing_of_the_last_one(
    o: Orchestrator, agent: Agent
) -> None:
    await o.order(start("a"))
    await o.ended("a")
    await o.order(run("b", "sh", "-c", f'echo "<$TOKEN>"; echo {VALUE}'))
    [final] = await o.ended("b")
    assert final.stdout == f"<>\n{VALUE}\n"  # Nor does it mask what is no secret of its own.


@pytest.mark.processes
@scenario()
async def test_a_task_whose_secret_did_not_come_is_not_begun(o: Orchestrator, agent: Agent) -> None:
    await o.order(run("e", task=task("true")))
    [final] = await o.ended("e")
    assert (final.happened, final.code, final.retryable) == (Happened.FAIL, "not-started", True)
    assert final.message.startswith("the secret for TOKEN is not here")


@pytest.mark.processes
@scenario()
async def test_what_runs_goes_on_masked_when_the_agent_was_killed(
    o: Orchestrator, agent: Agent
) -> None:
    await o.order(start("e", 'until [ -e go ]; do sleep 0.05; done; echo "$TOKEN"'))
    await o.until(lambda: any(it.happened is Happened.START for it in o.of("e")))
    await agent.end(signal.SIGKILL)
    await agent.start()
    (agent.state / "work" / "e" / "go").touch()
    [final] = await o.ended("e")
    assert final.stdout == "***\n"
