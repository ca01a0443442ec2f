"""The agent as a process, against an orchestrator that speaks the protocol over a websocket."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from nodes.protocol.messages import (
    Close,
    Goodbye,
    Happened,
    Heartbeat,
    Hello,
    LogEnd,
    Orders,
    Report,
    Unwatch,
    Watch,
)
from tests.agent.agents import Agent, scenario
from tests.agent.orchestrator import Orchestrator, bid, reject, run, stop

pytestmark = pytest.mark.processes


def words(reports: list[Report]) -> list[Happened]:
    return [report.happened for report in reports]


@scenario()
async def test_an_agent_whose_node_was_removed_says_so_with_the_cure_and_ends(
    o: Orchestrator, agent: Agent
) -> None:
    assert o.socket is not None
    await o.socket.close(Close.REMOVED, "The node n was removed by an operator.")
    code, said = await agent.ended()
    assert code == 5
    assert said.splitlines()[-1].endswith(
        "ERROR   agent=n The node n was removed by an operator; to let this machine join again,"
        f" start the agent with a new join token and another --state-dir than {agent.state}"
    )
    assert said.count("was removed") == 1


@scenario()
async def test_an_agent_that_was_fenced_says_so_when_it_asks_again(
    o: Orchestrator, agent: Agent
) -> None:
    def greetings() -> list[bool]:
        return [message.fenced for message in o.messages if isinstance(message, Hello)]

    await o.socket.close(Close.FENCED, "a newer link of this node exists")
    await o.until(lambda: len(greetings()) == 2)
    assert greetings() == [False, True]
    await o.cut()
    await o.until(lambda: len(greetings()) == 3)
    assert greetings() == [False, True, False]


@scenario()
async def test_the_conversation_from_bid_to_completion(o: Orchestrator, agent: Agent) -> None:
    await o.order(bid("a", "echo", "hello"), bid("b"))
    await o.until(lambda: o.of("a") and o.of("b"))
    await o.order(run("a", "echo", "hello"), reject("b"))
    [final] = await o.ended("a")
    assert words(o.of("a")) == [Happened.BID, Happened.START, Happened.COMPLETE]
    assert (final.exit_code, final.stdout) == (0, "hello\n")
    assert words(o.of("b")) == [Happened.BID]
    await o.until(lambda: o.frames[-1].order_rev == 4)
    assert o.headers == ["Node nt_secret"]


@scenario()
async def test_a_thousand_tasks_share_frames(o: Orchestrator, agent: Agent) -> None:
    names = [f"e{number}" for number in range(1000)]
    for start in range(0, 1000, 200):
        await o.order(*(run(name, "true") for name in names[start : start + 200]))
    finals = await o.ended(*names, within=60)
    assert set(words(finals)) == {Happened.COMPLETE}
    assert len(o.reports) == 2000
    assert len(o.frames) < 700
    assert [frame.seq for frame in o.frames] == list(range(1, len(o.frames) + 1))


@scenario()
async def test_a_killed_agent_comes_back_with_its_tasks_and_missed_exits(
    o: Orchestrator, agent: Agent
) -> None:
    os.mkfifo(fifo := agent.state / "fifo")
    await o.order(run("ends", "sh", "-c", f"read x < {fifo}; exit 7"), run("stays", "sleep", "60"))
    await o.until(lambda: o.of("ends") and o.of("stays"))
    await agent.end(signal.SIGKILL)
    await asyncio.to_thread(fifo.write_text, "go\n")
    await agent.start()
    [final] = await o.ended("ends")
    assert (final.happened, final.exit_code) == (Happened.FAIL, 7)
    hellos = [message for message in o.messages if isinstance(message, Hello)]
    assert [hello.run for hello in hellos] == [1, 2]
    assert hellos[0].ledger == hellos[1].ledger
    assert hellos[0].instance != hellos[1].instance
    await o.order(stop("stays"))
    [final] = await o.ended("stays")
    assert (final.happened, final.code) == (Happened.CANCEL, "stopped")


@scenario()
async def test_agents_killed_again_and_again_start_nothing_twice(
    o: Orchestrator, agent: Agent
) -> None:
    names = [f"e{number}" for number in range(150)]
    line = f"echo x >> {agent.state}/begun.$MUSTER_EXECUTION_ID"
    for start in range(0, 150, 30):
        some = names[start : start + 30]
        await o.order(*(_counted(name, line) for name in some))
        await o.until(lambda some=some: any(o.of(name) for name in some))  # type: ignore[misc]
        await agent.end(signal.SIGKILL)
        await agent.start()
        await o.until(lambda: o.socket)
    finals = await o.ended(*names, within=60)
    assert set(words(finals)) == {Happened.COMPLETE}
    for name in names:
        assert (agent.state / f"begun.{name}").read_text() == "x\n"


def _counted(name: str, line: str):
    from nodes.protocol.messages import Task

    task = Task("process", ("sh", "-c", line), env={"MUSTER_EXECUTION_ID": name})
    return run(name, task=task)


@scenario(acknowledges=False)
async def test_reports_that_nobody_acknowledged_come_again_on_the_next_link(
    o: Orchestrator, agent: Agent
) -> None:
    await o.order(run("a", "true"))
    await o.ended("a")
    o.acknowledges, o.reports = True, []
    await o.cut()
    await o.ended("a")
    assert words(o.of("a")) == [Happened.START, Happened.COMPLETE]
    assert len([message for message in o.messages if isinstance(message, Hello)]) == 2


@scenario()
async def test_a_gap_in_the_orders_ends_the_link_and_the_full_set_heals_it(
    o: Orchestrator, agent: Agent
) -> None:
    order = run("a", "true")
    o.desired["a"], o.order_rev = order, 5
    await o.send(Orders(o.epoch, 4, 5, (order,)))
    await o.ended("a")
    assert o.epoch == 2


@scenario(heartbeat=0.1)
async def test_heartbeats_come_as_often_as_asked(o: Orchestrator, agent: Agent) -> None:
    await o.until(lambda: sum(isinstance(m, Heartbeat) for m in o.messages) >= 3)


@scenario(heartbeat=0.5)
async def test_a_link_that_falls_silent_is_closed_once_and_another_one_opened(
    o: Orchestrator, agent: Agent
) -> None:
    silent = o.socket
    assert silent is not None
    # Not even that the agent closes it is answered.
    silent.transport.pause_reading()
    await o.until(lambda: o.epoch == 2)
    silent.transport.abort()
    _, said = await agent.end()
    assert said.count("closing the link") == 1


@scenario(heartbeat=0.5)
async def test_a_link_that_is_full_of_what_nobody_takes_is_given_up_and_another_one_opened(
    o: Orchestrator, agent: Agent
) -> None:
    await o.order(run("loud", "sh", "-c", "yes | head -c 24000000"))
    await o.ended("loud")
    full = o.socket
    assert full is not None
    full.transport.pause_reading()
    await o.send(Watch(o.epoch, "w", "loud", "stdout", credit=24_000_000))
    await o.until(lambda: o.epoch == 2)
    full.transport.abort()


@scenario()
async def test_an_agent_that_is_told_to_end_says_goodbye_and_leaves_its_tasks(
    o: Orchestrator, agent: Agent
) -> None:
    await o.order(run("a", "sleep", "60"))
    await o.until(lambda: o.of("a"))
    code, said = await agent.end()
    assert code == 0
    assert isinstance(o.messages[-1], Goodbye)
    assert "nt_secret" not in said
    assert "leaving; tasks go on" in said
    await agent.start()
    await o.order(stop("a"))
    [final] = await o.ended("a")
    assert final.code == "stopped"


@scenario()
async def test_a_second_agent_on_one_state_directory_says_so(o: Orchestrator, agent: Agent) -> None:
    second = Agent(agent.state, agent.server)
    await second.start()
    code, said = await second.ended()
    assert code == 3
    assert f"another agent uses the state directory {agent.state}" in said


@scenario()
async def test_a_refused_agent_says_why_once_and_waits(o: Orchestrator, agent: Agent) -> None:
    assert o.socket is not None
    await o.socket.close(Close.REFUSED, "the operator has rejected this node")
    assert agent.process is not None
    assert agent.process.stderr is not None
    async with asyncio.timeout(10):
        while b"rejected this node" not in (line := await agent.process.stderr.readline()):
            assert line
    wait = float(line.decode().rsplit("trying again in ", 1)[1].split()[0])
    assert 60 <= wait <= 120


# --- logs ----------------------------------------------------------------------------------------


def text(o: Orchestrator, watch: str) -> bytes:
    chunks = [chunk for chunk in o.chunks if chunk.watch == watch]
    position = chunks[0].offset if chunks else 0
    for chunk in chunks:
        assert chunk.offset == position
        position += len(chunk.data)
    return b"".join(chunk.data for chunk in chunks)


def ends(o: Orchestrator, watch: str) -> list[LogEnd]:
    return [m for m in o.messages if isinstance(m, LogEnd) and m.watch == watch]


@scenario()
async def test_a_watcher_gets_what_was_written_and_then_what_comes(
    o: Orchestrator, agent: Agent
) -> None:
    os.mkfifo(fifo := agent.state / "fifo")
    await o.order(run("a", "sh", "-c", f"echo one; echo bad >&2; read x < {fifo}; echo two"))
    await o.send(Watch(o.epoch, "w", "a", "stdout"))
    await o.send(Watch(o.epoch, "v", "a", "stderr"))
    await o.until(lambda: text(o, "w") == b"one\n" and text(o, "v") == b"bad\n")
    await asyncio.to_thread(fifo.write_text, "go\n")
    await o.until(lambda: ends(o, "w") and ends(o, "v"))
    assert text(o, "w") == b"one\ntwo\n"
    assert [end.reason for end in ends(o, "w")] == [""]
    await o.send(Watch(o.epoch, "late", "a", "stdout", offset=-4))
    await o.until(lambda: ends(o, "late"))
    assert text(o, "late") == b"two\n"


@scenario()
async def test_a_watcher_gets_no_more_than_it_granted(o: Orchestrator, agent: Agent) -> None:
    size = 300_000
    await o.order(run("a", "sh", "-c", f"head -c {size} /dev/zero | tr '\\0' x"))
    await o.ended("a")
    await o.send(Watch(o.epoch, "w", "a", "stdout", credit=100_000))
    await o.until(lambda: len(text(o, "w")) == 100_000)
    await o.send(Watch(o.epoch, "other", "a", "stdout", offset=-5))
    await o.until(lambda: ends(o, "other"))
    assert len(text(o, "w")) == 100_000
    await o.send(Watch(o.epoch, "w", "a", "stdout", credit=1_000_000))
    await o.until(lambda: ends(o, "w"))
    assert text(o, "w") == b"x" * size
    await o.send(Watch(o.epoch, "w", "a", "stdout", credit=1_000_000))  # Crossed the end.
    await o.send(Watch(o.epoch, "last", "a", "stdout", offset=-5))
    await o.until(lambda: ends(o, "last"))
    assert text(o, "w") == b"x" * size


@scenario()
async def test_a_watch_of_nothing_ends_with_a_reason(o: Orchestrator, agent: Agent) -> None:
    await o.send(Watch(o.epoch, "w", "nobody", "stdout"))
    await o.send(Watch(o.epoch, "v", "nobody", "../../etc/passwd"))
    await o.until(lambda: ends(o, "w") and ends(o, "v"))
    assert ends(o, "w")[0].reason == "nothing was written, or it is no longer kept"
    assert ends(o, "v")[0].reason == "there is no stream '../../etc/passwd' of nobody here"


@scenario()
async def test_who_stops_watching_hears_no_more(o: Orchestrator, agent: Agent) -> None:
    await o.order(run("a", "sh", "-c", "while echo x; do sleep 0.01; done"))
    await o.send(Watch(o.epoch, "w", "a", "stdout"))
    await o.until(lambda: text(o, "w"))
    await o.send(Unwatch(o.epoch, "w"))
    await o.order(stop("a"))
    await o.ended("a")
    assert ends(o, "w") == []
