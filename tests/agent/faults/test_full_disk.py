"""A disk that is really full, and is freed again."""

from __future__ import annotations

import asyncio
import json
import subprocess
from asyncio.subprocess import Process
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.protocol.messages import Happened
from tests.agent.faults.tracing import (
    kill,
    spawners_and_supervisors,
    start_agent,
    status,
    until,
)
from tests.agent.orchestrator import Orchestrator, run

pytestmark = pytest.mark.processes

_PAGE = 4096


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "muster-test", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(ballast: Path) -> None:
    """Leave no byte of its disk for anybody."""
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 16, _PAGE, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


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


def test_tasks_that_end_while_the_disk_is_full_end_once_and_honestly(
    small_disk: Path, tmp_path: Path
) -> None:
    asyncio.run(_ten_on_a_full_disk(small_disk, tmp_path))


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
            fill(ballast := state / "ballast")
            gate.touch()

            def over() -> bool:
                fill(ballast)  # What the agent gives of its reserve is gone at once.
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
            while found := [pid for pids in spawners_and_supervisors(state) for pid in pids]:
                kill(*found)
                await asyncio.sleep(0.01)
