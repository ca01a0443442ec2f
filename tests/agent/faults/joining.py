"""One fault while an agent joins: afterwards it joins, as the one node that it asked to be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from asyncio.subprocess import Process
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.agent.faults.story import Plan, Verdict
from tests.agent.faults.tracing import Tracer, kill_all, start_agent, trace, until

_STEP = 30.0
_JOINED = "started as node n"


class Desk(ThreadingHTTPServer):
    """Makes a node for each key that it is asked with."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Clerk)
        self.nodes: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Who asked was killed before the answer."""


class _Clerk(BaseHTTPRequestHandler):
    server: Desk

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        nodes = self.server.nodes
        node = nodes.setdefault(asked["key"], f"n{len(nodes)}")
        self.send_response(201)
        self.end_headers()
        self.wfile.write(json.dumps({"node": node, "credential": f"nt_{node}"}).encode())

    def log_message(self, *_: object) -> None:
        pass


class Joining:
    """As a ``Story``, of an agent that is no node yet."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan, self.state = plan, directory / "state"
        self.log, self.token = directory / "agent.log", directory / "token"
        directory.mkdir(exist_ok=True)
        self.token.write_text("jt_1")
        self.tracer = Tracer(directory / "trace")

    async def tell(self) -> Verdict:
        with Desk() as desk:
            thread = threading.Thread(target=desk.serve_forever, args=(0.01,))
            thread.start()
            try:
                found = await self._join(desk)
            finally:
                desk.shutdown()
                thread.join()
                await self.tracer.detach()
                await kill_all(self.state)
        places = self.tracer.places(before='unlink("' + str(self.state / "enrolment.key"))
        return Verdict(self.plan, self.tracer.has_hit(), tuple(found), 0, places)

    async def _join(self, desk: Desk) -> list[str]:
        agent = await self._start(desk, stopped=True)
        await trace(self.tracer, agent, self.plan.call, self.plan.fault, self.plan.at)
        await self._joined(agent)
        await self.tracer.detach()
        self.log.write_text("")
        agent = await self._start(desk)
        await self._joined(agent)
        if _JOINED not in self.log.read_text():
            return [f"it does not join: {self.log.read_text()}"]
        [*nodes] = desk.nodes.values()
        identity = json.loads((self.state / "identity.json").read_text())
        return [] if nodes == ["n0"] == [identity["node"]] else [f"{identity} of {nodes}"]

    async def _start(self, desk: Desk, *, stopped: bool = False) -> Process:
        token = ("--join-token-file", str(self.token))
        return await start_agent(self.state, desk.url, self.log, *token, stopped=stopped)

    async def _joined(self, agent: Process) -> None:
        """Wait until it has joined or ended by itself, and end it."""
        with contextlib.suppress(TimeoutError):
            await until(
                lambda: agent.returncode is not None or _JOINED in self.log.read_text(), _STEP
            )
        if agent.returncode is None:
            agent.kill()
        await asyncio.wait_for(agent.wait(), _STEP)
