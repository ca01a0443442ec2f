"""The runner around a real ledger, without a link."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks.simulated import NoopDriver
from nodes.agent.facts import Exited, Fact
from nodes.agent.ledger import Ledger, LedgerUnusable
from nodes.agent.records import Changes, Entry, Machine, Stage
from nodes.agent.runner import Runner
from nodes.protocol.messages import Task
from nodes.protocol.resources import Resources

MACHINE = Machine("i", 1, "l", "b", Resources(cpu=1000), {}, {"process"})


def left(path: Path, entry: Entry) -> Ledger:
    """A ledger that a former run has left with *entry*."""
    ledger = Ledger(path / "ledger.db", now=0.0)
    ledger.commit(Changes(entries={entry.execution: entry}, boot="b"), now=0.0)
    return ledger


class Apart(NoopDriver):
    """Tasks that go on by themselves, as those of the process driver do."""

    def open(
        self, interrupted: Iterable[Entry], *, rebooted: bool, is_older: bool = False
    ) -> list[Fact]:
        return []


def test_what_a_driver_tells_as_the_agent_leaves_is_left_to_the_next_run(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    async def leave() -> None:
        entry = Entry("e", Stage.RUNNING, Task("process", ("true",)), driver="process")
        ledger = left(tmp_path, entry)
        runner = Runner(MACHINE, ledger, lambda tell: {"process": Apart(tell)})
        runner.on_failure = failures.append
        runner.start()
        runner.tell([Exited("e", 0)])
        runner.close()
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert failures == []
    ledger = Ledger(tmp_path / "ledger.db", now=0.0)
    [entry], reports = ledger.saved().entries, ledger.saved().reports
    assert (entry.stage, reports) == (Stage.RUNNING, ())
    ledger.close()


@pytest.mark.parametrize("stage", [Stage.STARTING, Stage.RUNNING])
def test_what_needs_a_driver_that_this_version_lacks_is_left_to_one_that_has_it(
    tmp_path: Path, stage: Stage
) -> None:
    async def start() -> None:
        entry = Entry("e", stage, Task("docker", ("true",)), driver="docker")
        ledger = left(tmp_path, entry)
        runner = Runner(MACHINE, ledger, lambda tell: {"process": Apart(tell)})
        try:
            with pytest.raises(LedgerUnusable, match="'docker', which this agent lacks: start the"):
                runner.start()
        finally:
            runner.close()

    asyncio.run(start())
