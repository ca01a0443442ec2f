"""One fault at one place: what is run, who dies with it, and what must be true afterwards.

Five tasks are ordered, each of which proves its start.  When the fault has struck, or all of them
went by it, what is on disk is kept.  From there the agent is started again on a good disk, twice:
as if nothing else had happened, and as after a restart of the machine, by which every process is
gone and, in every other plan, all that was never synced.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import sqlite3
from asyncio.subprocess import Process
from dataclasses import dataclass
from pathlib import Path

from nodes.protocol.messages import Happened, Report
from tests.agent.faults.tracing import (
    Tracer,
    kill,
    kill_all,
    spawners_and_supervisors,
    start_agent,
    start_spawner,
    status,
    trace,
    until,
)
from tests.agent.orchestrator import FINAL, Orchestrator, run, stop

#: Who is hit; "both" are the spawner and each supervisor that it forks.
ROLES = ("agent", "spawner", "supervisor", "both")
RIGHT = {
    "quick": (Happened.COMPLETE, "", 0),
    "seven": (Happened.FAIL, "exit-code", 7),
    "late": (Happened.FAIL, "exit-code", 3),
    "halted": (Happened.CANCEL, "stopped", None),
    "long": (Happened.CANCEL, "stopped", None),
    "new": (Happened.COMPLETE, "", 0),
}
_SCRIPTS = {
    "quick": "echo hello",
    "seven": "echo seven; mkdir -p a/b; touch a/b/c; exit 7",
    "late": "until [ -e {root}/gate ]; do sleep 0.05; done; echo late; exit 3",
    "halted": "exec sleep 600",
    "long": "exec sleep 600",
    "new": "echo new",
}
#: So long may a step take, in seconds, on a machine that has much else to do.
_STEP = 30.0


@dataclass(frozen=True)
class Plan:
    """At the *at*-th *call* of *role* *fault* happens; *dies* is who is killed with it."""

    role: str
    call: str = ""
    fault: str = ""
    at: int = 0
    dies: str = "nobody else"
    is_synced: bool = True

    def __str__(self) -> str:
        return f"{self.role}: {self.fault} at {self.call} {self.at}, {self.dies}"


@dataclass(frozen=True)
class Verdict:
    """What was *found* wrong.

    *hit*: the fault has happened; *unknown*: of so many tasks nobody can tell how they ended, or
    they were not started.  *is_possible* is False when an error struck a call that no disk fails.
    """

    plan: Plan
    hit: bool
    found: tuple[str, ...]
    unknown: int
    places: dict[str, list[list[int]]]
    is_possible: bool = True


class Story:
    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan, self.directory = plan, directory
        self.root, self.kept = directory / "node", directory / "kept"
        self.state, self.starts = self.root / "state", self.root / "starts"
        self.log = directory / "agent.log"
        for place in ("exits", "work", "logs"):
            (self.state / place).mkdir(parents=True)
        self.starts.mkdir()
        identity = {"node": "n", "credential": "nt_secret"}
        (self.state / "identity.json").write_text(json.dumps(identity))
        self.tracer = Tracer(directory / "trace")
        self.agent: Process | None = None
        self.unknown = 0
        #: Steps that took too long though nobody had died.
        self.stalled: list[str] = []

    async def tell(self) -> Verdict:
        try:
            async with Orchestrator() as o:
                await self._act(o)
            self._keep()
            found = [f"before it: {one}" for one in self.stalled]
            found += [f"same boot: {one}" for one in await self._judge(o)]
            unknown = self.unknown  # A restart of the machine makes some unknown by itself.
            await self._restart_the_machine()
            found += [f"another boot: {one}" for one in await self._judge(o)]
        finally:
            await self._kill_all()
        is_possible = not self.tracer.failed_what_no_disk_fails()
        return Verdict(
            self.plan,
            self.tracer.has_hit(),
            tuple(found),
            unknown,
            self.tracer.places(),
            is_possible,
        )

    # --- until the fault -------------------------------------------------------------------------

    async def _act(self, o: Orchestrator) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            traced = self.plan.role
            if traced in ("spawner", "both"):
                spawner = await start_spawner(self.state, theirs.fileno(), self.log)
                await self._trace(spawner)
            self.agent = await start_agent(self.state, o.url, self.log, stopped=traced == "agent")
            if traced == "agent":
                await self._trace(self.agent)
            acting = asyncio.ensure_future(self._order_and_see(o))
            hit = asyncio.ensure_future(self._hit())
            await asyncio.wait((acting, hit), return_when=asyncio.FIRST_COMPLETED)
            if self.plan.fault == "KILL" and self.tracer.has_hit():
                await self._die_too()
            for one in (acting, hit):
                one.cancel()
            for failure in await asyncio.gather(acting, hit, return_exceptions=True):
                is_alive = self.agent.returncode is None and not self._has_no_room_to_begin(o)
                if isinstance(failure, TimeoutError) and is_alive:
                    self.stalled.append(f"stood still: {failure}")
            if self.plan.dies == "the agent, while all run":
                await self._kill_agent()
        (self.root / "gate").touch()
        await until(lambda: not self._is_alive("late"), _STEP, "late ends")
        if self.agent.returncode is None and not self.stalled and o.of("late"):
            with contextlib.suppress(TimeoutError):
                await o.until(lambda: o.final("late"), _STEP)
        await self._end_agent()
        await self.tracer.detach()

    def _has_no_room_to_begin(self, o: Orchestrator) -> bool:
        """Whether it says that it waits for room for its ledger, and has not come further."""
        return not o.socket and "trying on until there is" in self.log.read_text()

    async def _trace(self, process: Process) -> None:
        plan, followed = self.plan, self.plan.role != "spawner"
        await trace(self.tracer, process, plan.call, plan.fault, plan.at, followed=followed)

    async def _order_and_see(self, o: Orchestrator) -> None:
        await o.until(lambda: o.socket, _STEP)
        if self.plan.role == "supervisor":
            # These become idle, and serve what comes then.
            warm = [run(f"warm{number}", "true") for number in range(3)]
            await o.order(*warm)
            await o.ended(*(order.execution for order in warm), within=_STEP)
            plan, (_, idle) = self.plan, spawners_and_supervisors(self.state)
            await self.tracer.attach(idle, plan.call, plan.fault, plan.at)
        await self._order(o, "quick", "late", "long")
        await o.until(lambda: all(o.of(one) for one in ("quick", "late", "long")), _STEP)
        await o.until(lambda: o.final("quick"), _STEP)
        await self._order(o, "seven", "halted")
        await o.until(lambda: o.final("seven") and o.of("halted"), _STEP)
        await o.order(stop("halted"))
        await o.until(lambda: o.final("halted"), _STEP)

    async def _order(self, o: Orchestrator, *names: str) -> None:
        await o.order(*(run(one, "sh", "-c", self._script(one)) for one in names))

    def _script(self, name: str) -> str:
        return f"echo $$ >> {self.starts}/{name}; {_SCRIPTS[name].format(root=self.root)}"

    async def _hit(self) -> None:
        """Return when who was to be killed is dead, or the agent has given up."""
        assert self.agent is not None
        while self.agent.returncode is None:
            if self.plan.fault == "KILL" and self.tracer.has_hit():
                return
            await asyncio.sleep(0.005)

    async def _die_too(self) -> None:
        spawners, supervisors = spawners_and_supervisors(self.state)
        if self.plan.role == "agent" or self.plan.dies in ("the agent too", "everybody"):
            await self._kill_agent()
        if self.plan.dies in ("the spawner too", "everybody"):
            kill(*spawners)
        if self.plan.dies == "everybody":
            kill(*supervisors)

    async def _end_agent(self) -> None:
        """Tell it to end; the write by which it hears that may be the one that fails."""
        assert self.agent is not None
        if self.agent.returncode is None:
            kill(self.agent.pid, number=signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STEP):
                await self.agent.wait()
        await self._kill_agent()

    async def _kill_agent(self) -> None:
        if self.agent is not None:
            if self.agent.returncode is None:
                kill(self.agent.pid)
            await self.agent.wait()

    def _keep(self) -> None:
        """Copy what is on disk; again, when somebody who lives removes a file meanwhile."""
        while not self.kept.exists():
            try:
                shutil.copytree(self.root, self.kept, ignore=shutil.ignore_patterns("*.sock"))
            except shutil.Error:
                shutil.rmtree(self.kept)

    async def _restart_the_machine(self) -> None:
        await self._kill_all()
        shutil.rmtree(self.root)
        self.kept.rename(self.root)
        if (ledger := self.state / "ledger.db").exists():
            db = sqlite3.connect(ledger)
            try:
                db.execute("UPDATE fact SET value = 'another' WHERE name = 'boot'")
                db.commit()
            except sqlite3.OperationalError:  # It has no tables yet.
                pass
            finally:
                db.close()
        if not self.plan.is_synced:
            for journal in (self.state / "exits").iterdir():
                journal.write_bytes(b"")

    # --- after it --------------------------------------------------------------------------------

    async def _judge(self, before: Orchestrator) -> list[str]:
        """Start the agent on a good disk, stop what should be stopped; what is wrong then."""
        async with _heir(before) as o:
            self.agent = await start_agent(self.state, o.url, self.log)
            try:
                await o.until(lambda: o.socket or self.agent.returncode is not None, _STEP)
                if o.socket is None:
                    return ["the agent does not start"]
                ordered = [one for one in _SCRIPTS if one in before.desired or before.final(one)]
                stopped = [one for one in ("long", "halted") if one in ordered]
                await o.order(*(stop(one) for one in stopped if not o.final(one)))
                await self._order(o, "new")
                ordered.append("new")
                try:
                    await o.ended(*ordered, within=_STEP)
                except TimeoutError:
                    missing = [one for one in ordered if not o.final(one)]
                    return [f"{', '.join(missing)}: no end; {self._verdicts(o, ordered)}"]
                try:
                    await until(lambda: not any(map(self._is_alive, ordered)), _STEP / 3)
                except TimeoutError:
                    return [f"{one} runs on" for one in ordered if self._is_alive(one)]
                return self._verdicts(o, ordered)
            finally:
                await self._end_agent()

    def _verdicts(self, o: Orchestrator, ordered: list[str]) -> list[str]:
        return [
            f"{one}: {wrong}"
            for one in ordered
            if (wrong := self._wrong(one, [r for r in o.of(one) if r.happened in FINAL]))
        ]

    def _wrong(self, name: str, finals: list[Report]) -> str:
        starts = len(self._pids(name))
        ends = {(one.happened, one.code, one.exit_code) for one in finals}
        if starts > 1:
            return f"started {starts} times"
        if len(ends) != 1:
            return f"ended in {len(ends)} ways: {ends}"
        [end] = ends
        if end[1] == "unknown-outcome" and name != "new":
            self.unknown += 1
            return ""
        if end[1] == "not-started" and name != "new":
            self.unknown += 1
            return "it was started, and is called not started" if starts else ""
        if end != RIGHT[name]:
            is_stopped = end[0] is Happened.CANCEL and RIGHT[name][0] is Happened.CANCEL
            return "" if is_stopped else f"ended as {end}"
        return "" if starts or end[0] is Happened.CANCEL else "it never ran"

    def _pids(self, name: str) -> list[int]:
        file = self.starts / name
        return [int(word) for word in file.read_text().split()] if file.exists() else []

    def _is_alive(self, name: str) -> bool:
        return any(status(pid) not in ("", "Z") for pid in self._pids(name))

    async def _kill_all(self) -> None:
        await self._kill_agent()
        await self.tracer.detach()
        await kill_all(self.state)
        kill(*(pid for one in _SCRIPTS for pid in self._pids(one) if self._is_alive(one)))
        await until(lambda: not any(map(self._is_alive, _SCRIPTS)), _STEP, "tasks are gone")


def _heir(before: Orchestrator) -> Orchestrator:
    """An orchestrator that knows what *before* knew."""
    heir = Orchestrator()
    heir.epoch, heir.order_rev = before.epoch, before.order_rev
    heir.desired, heir.reports = dict(before.desired), list(before.reports)
    return heir
