"""A real agent process on a state directory, against an orchestrator of the tests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.agent.faults.tracing import spawners_and_supervisors, until
from tests.agent.orchestrator import Orchestrator

REPOSITORY = Path(__file__).parents[2]


class Agent:
    """A real agent process on a state directory; there are no walls unless *options* say some.

    *python* is the command line by which it is started, *environ* what it finds there.
    """

    def __init__(
        self,
        state: Path,
        server: str,
        options: tuple[str, ...] = ("--isolation", "none"),
        python: tuple[str, ...] = (sys.executable,),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.state, self.server = state, server
        self.options, self.python, self.environ = options, python, environ
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *options: str) -> None:
        command = ["-m", "nodes.agent", "--server", self.server, "--state-dir", str(self.state)]
        command += ["--name", "n", "--cpu", "100000", *self.options, *options]
        self.process = await asyncio.create_subprocess_exec(
            *(*self.python, *command),
            cwd=REPOSITORY,
            env=self.environ,
            stderr=asyncio.subprocess.PIPE,
        )

    async def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> tuple[int, str]:
        assert self.process is not None
        async with asyncio.timeout(20):
            _, said = await self.process.communicate()
        return self.process.returncode or 0, said.decode()


@asynccontextmanager
async def cluster(
    state: Path, agent: Callable[[Path, str], Agent] = Agent, **options: object
) -> AsyncIterator[tuple[Orchestrator, Agent]]:
    identity = {"node": "n", "credential": "nt_secret"}
    (state / "identity.json").write_text(json.dumps(identity))
    owner = os.stat(state)  # noqa: PTH116
    os.chown(state / "identity.json", owner.st_uid, owner.st_gid)
    async with Orchestrator(**options) as orchestrator:  # type: ignore[arg-type]
        agent = agent(state, orchestrator.url)
        await agent.start()
        try:
            await orchestrator.until(lambda: orchestrator.socket)
            yield orchestrator, agent
        finally:
            await agent.end()
            await until(lambda: not (state / "spawner.sock").exists(), 15, "the spawner ends")


def spawner_at(state: Path) -> int:
    """The pid of the spawner that serves *state*."""
    (spawner, *_), _ = spawners_and_supervisors(state)
    return spawner


def scenario(
    **options: object,
) -> Callable[[Callable[[Orchestrator, Agent], Awaitable[None]]], Callable[[Path], None]]:
    def wrap(story: Callable[[Orchestrator, Agent], Awaitable[None]]) -> Callable[[Path], None]:
        def test(tmp_path: Path) -> None:
            async def tell() -> None:
                async with cluster(tmp_path, **options) as (orchestrator, agent):
                    await story(orchestrator, agent)

            asyncio.run(tell())

        return test

    return wrap
