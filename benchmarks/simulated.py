"""Many agents in one process, until its standard input ends: `-m benchmarks.simulated URL N`.

The real core and link, a ledger in memory, a driver that runs nothing; enrolment is the real one.
The join token comes in the environment.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from nodes.agent import __version__, enrolment, machine
from nodes.agent.drivers import Tell
from nodes.agent.enrolment import Identity
from nodes.agent.facts import Exited, Fact, Started, Vanished
from nodes.agent.link import Link
from nodes.agent.main import websocket_url
from nodes.agent.records import Changes, Entry, Machine, Saved
from nodes.agent.runner import Runner
from nodes.protocol.messages import Report
from nodes.protocol.resources import Resources

DRIVERS = ("process", "noop")
_LARGE = Resources(cpu=16_000, memory=64 << 30, disk=1 << 40)


@dataclass
class SimulatedAgent:
    """One agent that can be connected and left.  *duration* is how long each task seems to run."""

    server: str
    identity: Identity
    resources: Resources = _LARGE
    attributes: dict[str, str] = field(default_factory=dict)
    duration: float = 0.0

    def start(self) -> None:
        """Connect, and stay connected until ``leave``."""
        noop = {"driver." + name: "true" for name in DRIVERS}
        self.runner = Runner(
            Machine(
                instance=str(uuid.uuid4()),
                run=1,
                ledger=str(uuid.uuid4()),
                boot=machine.boot_id(),
                capacity=self.resources,
                attributes={"os": "linux", "simulated": "true", **noop, **self.attributes},
                drivers=frozenset(DRIVERS),
                agent_version=__version__,
            ),
            MemoryLedger(self.identity.node),
            lambda tell: dict.fromkeys(DRIVERS, NoopDriver(tell, self.duration)),
        )
        self.runner.start()
        self.link = Link(websocket_url(self.server), self.identity.credential, self.runner)
        self._keeping = asyncio.ensure_future(self.link.keep())

    async def leave(self) -> None:
        await self.link.leave("the simulation is over")
        self._keeping.cancel()
        self.runner.close()

    @property
    def welcomed(self) -> bool:
        return self.runner.core.epoch is not None


async def enrol(server: str, token: str, names: list[str], *, at_once: int = 8) -> list[Identity]:
    """Identities for *names*, a few enrolments at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one(name: str) -> Identity:
        async with gate:
            return await asyncio.to_thread(enrolment.enrol, server, token, name)

    return list(await asyncio.gather(*(one(name) for name in names)))


class NoopDriver:
    """Tasks that do nothing for *duration* seconds and succeed."""

    def __init__(self, tell: Tell, duration: float = 0.0) -> None:
        self._tell, self._duration = tell, duration
        self._running: dict[str, asyncio.TimerHandle] = {}
        self._fresh: list[Fact] = []

    degraded = ""

    def open(
        self, interrupted: Iterable[Entry], *, rebooted: bool, is_older: bool = False
    ) -> list[Fact]:
        return [Vanished(entry.execution) for entry in interrupted]

    def start(self, entry: Entry) -> None:
        loop = asyncio.get_running_loop()
        if not self._fresh:
            loop.call_soon(self._flush)
        self._fresh.append(Started(entry.execution))
        if self._duration:
            timer = loop.call_later(self._duration, self._end, entry.execution, 0, "")
            self._running[entry.execution] = timer
        else:
            self._fresh.append(Exited(entry.execution, 0, ran=0.0))

    def stop(self, execution: str) -> None:
        if (timer := self._running.get(execution)) is not None:
            timer.cancel()
            self._end(execution, -15, "stopped")

    def discard(self, execution: str) -> None:
        pass

    def tidy(self, kept: Set[str]) -> None:
        pass

    def close(self) -> None:
        for timer in self._running.values():
            timer.cancel()

    def _end(self, execution: str, status: int, why: str) -> None:
        self._running.pop(execution, None)
        self._tell([Exited(execution, status, why=why, ran=self._duration)])

    def _flush(self) -> None:
        facts, self._fresh = self._fresh, []
        self._tell(facts)


class MemoryLedger:
    """A ledger that dies with its process."""

    is_older = False

    def __init__(self, name: str) -> None:
        self.id, self.run = name, 1
        self._graves: dict[str, Report | None] = {}

    def saved(self) -> Saved:
        return Saved()

    def recall(self, execution: str) -> tuple[bool, Report | None]:
        return execution in self._graves, self._graves.get(execution)

    def commit(self, changes: Changes, now: float) -> None:
        self._graves.update(changes.tombstones)
        while len(self._graves) > 10_000:
            del self._graves[next(iter(self._graves))]

    def prune(self, now: float) -> None:
        pass

    def take_room(self) -> None:
        pass

    def close(self) -> None:
        pass


async def main(server: str, count: int) -> None:
    names = [f"simulated-{number:04}" for number in range(count)]
    identities = await enrol(server, os.environ["JOIN_TOKEN"], names)
    agents = [SimulatedAgent(server, identity) for identity in identities]
    for agent in agents:
        agent.start()
    while not all(agent.welcomed for agent in agents):  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.05)
    print("connected", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await asyncio.gather(*(agent.leave() for agent in agents))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
