"""Many agents in one process, until its standard input ends: `-m benchmarks.simulated URL N`.

The real core and link, a driver that runs nothing.  The join token comes in the environment.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nodes.agent.simulated import SimulatedAgent, enrol


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
