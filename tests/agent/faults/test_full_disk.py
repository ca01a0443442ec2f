"""A disk that is really full, and is freed again."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import Process
from pathlib import Path

import pytest

from nodes.protocol.messages import Happened
from tests.agent.disks import fill, small_disk
from tests.agent.faults.tracing import (
    kill,
    kill_all,
    spawners_and_supervisors,
    start_agent,
    status,
    until,
)
from tests.agent.orchestrator import Orchestrator, run

pytestmark = pytest.mark.processes

_PAGE = 4096


class ServiceManager:
    """Starts the agent again whenever it gives up."""

    def __init__(self, state: Path, url: str, log: Path) -> None:
        self.state, self.url, self.log = state, url, log
        self.agent: Process | None = None

    async def keep(self) -> None:
        while True:
            self.agent = await start_agent(self.state, self.url, self.log)
            await self.agent.wait()
            await asyncio.sleep(0.2)

    async def end(self) -> None:
        if self.agent is not None and self.agent.returncode is None:
            kill(self.agent.pid)
            await self.agent.wait()


def test_tasks_that_end_while_the_disk_is_full_end_once_and_honestly(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=64) as state:
        asyncio.run(_ten_on_a_full_disk(state, tmp_path))


async def _ten_on_a_full_disk(state: Path, beside: Path) -> None:
    gate, names = beside / "gate", [f"t{number}" for number in range(10)]
    (state / "identity.json").write_text(json.dumps({"node": "n", "credential": "nt_secret"}))
    wait = f"until [ -e {gate} ]; do sleep 0.05; done; echo done; exit 3"

    def pids() -> list[int]:
        return [int(pid) for one in names for pid in (beside / one).read_text().split()]

    async with Orchestrator() as o:
        manager = ServiceManager(state, o.url, beside / "agent.log")
        keeping = asyncio.ensure_future(manager.keep())
        try:
            await o.until(lambda: o.socket)
            await o.order(
                *(run(one, "sh", "-c", f"echo $$ >> {beside / one}; {wait}") for one in names)
            )
            await o.until(lambda: all(o.of(one) for one in names))
            _, supervisors = spawners_and_supervisors(state)
            for journal in (state / "exits").iterdir():  # What is left of its page is room, too.
                with journal.open("ab") as file:
                    file.write(b"\n" * (-journal.stat().st_size % _PAGE))
            ballast = fill(state)
            gate.touch()

            def over() -> bool:
                fill(state)  # What the agent gives of its reserve is gone at once.
                living = {*spawners_and_supervisors(state)[1]} & {*supervisors}
                return not living and not any(map(status, pids()))

            await until(over, 40, "tasks end, and supervisors that could not record that")
            ballast.unlink()
            ends = await o.ended(*names, within=40)
            assert {(end.happened, end.code, end.exit_code) for end in ends} <= {
                (Happened.FAIL, "exit-code", 3),
                (Happened.FAIL, "unknown-outcome", None),
            }
            assert len(pids()) == len(names), "each was started once"
            assert len(spawners_and_supervisors(state)[0]) == 1
            await o.order(run("new", "true"))
            assert (await o.ended("new", within=40))[0].happened is Happened.COMPLETE
        finally:
            keeping.cancel()
            await manager.end()
            await kill_all(state)
