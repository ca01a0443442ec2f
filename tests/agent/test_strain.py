"""An agent whose spawner, ledger, disk or link is in trouble: it says so, and recovers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from nodes.protocol.messages import Happened, Heartbeat, Hello
from tests.agent.agents import Agent, scenario
from tests.agent.orchestrator import Orchestrator, bid, run, stop

pytestmark = pytest.mark.processes

DEAF = "its spawner does not answer"


def spawner_of(state: Path) -> int:
    """The pid of the spawner that serves *state*."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word.endswith(b"spawner.py") for word in words) and str(state).encode() in words:
                return int(process.name)
    raise LookupError(state)


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
    os.kill(spawner := spawner_of(agent.state), signal.SIGSTOP)
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
async def test_an_agent_that_finds_its_spawner_stopped_names_it_with_the_cure(
    o: Orchestrator, agent: Agent
) -> None:
    await o.order(run("a", "sleep", "60"))
    await o.until(lambda: o.of("a"))
    await agent.end(signal.SIGKILL)
    os.kill(spawner := spawner_of(agent.state), signal.SIGSTOP)
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
