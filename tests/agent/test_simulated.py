"""Many agents in one process, each with the real core and link."""

from __future__ import annotations

from benchmarks.simulated import SimulatedAgent
from nodes.agent.enrolment import Identity
from nodes.protocol.messages import Happened
from tests.agent.orchestrator import Orchestrator, bid, run, stop


async def test_simulated_agents_bid_run_and_complete_without_a_process():
    async with Orchestrator() as one, Orchestrator() as other:
        identities = [Identity(str(number), "nt_x") for number in range(2)]
        agents = [
            SimulatedAgent(server.url, identity)
            for server, identity in zip((one, other), identities, strict=True)
        ]
        for agent in agents:
            agent.start()
        for server in (one, other):
            await server.until(lambda server=server: server.socket)  # type: ignore[misc]
            await server.order(bid("a"))
            await server.until(lambda server=server: server.of("a"))  # type: ignore[misc]
            await server.order(run("a"))
            await server.ended("a")
            assert [report.happened for report in server.of("a")] == [
                Happened.BID,
                Happened.START,
                Happened.COMPLETE,
            ]
        assert all(agent.welcomed for agent in agents)
        for agent in agents:
            await agent.leave()


async def test_a_simulated_task_may_seem_to_run_and_can_be_stopped():
    async with Orchestrator() as server:
        agent = SimulatedAgent(server.url, Identity("n", "nt_x"), duration=60.0)
        agent.start()
        await server.order(run("a"))
        await server.until(lambda: server.of("a"))
        await server.order(stop("a"))
        [final] = await server.ended("a")
        assert (final.happened, final.code) == (Happened.CANCEL, "stopped")
        await agent.leave()
