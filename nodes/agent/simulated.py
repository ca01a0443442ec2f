"""Many agents in one process: the real core and link, a driver that runs nothing.

For benchmarks and rehearsals of large clusters.  Enrolment is the real one too.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field

from ..protocol.resources import Resources
from . import __version__, enrolment, machine
from .drivers.noop import NoopDriver
from .enrolment import Identity
from .ledger import MemoryLedger
from .link import Link
from .main import websocket_url
from .records import Machine
from .runner import Runner

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
