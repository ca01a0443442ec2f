"""The websocket to the orchestrator: connect, keep connected, back off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from ..protocol import codec
from ..protocol.messages import MAX_FRAME, SUBPROTOCOL, Close
from .enrolment import Removed
from .runner import Runner

log = logging.getLogger(__name__)

#: A session that lasted this long was a good one: the next attempt comes soon.
_STABLE = 10.0
_SHORT, _LONG = 0.5, 30.0
_FENCED = 10.0
_REFUSED = 60.0
#: Seconds after which a link is cut whose other end takes nothing, not even that it is closed.
_CLOSES_WITHIN = 3.0


@dataclass(frozen=True)
class Ended:
    """Why a link ended: a close code or HTTP status (0: it just broke), and a sentence."""

    code: int
    reason: str


def pause(ended: Ended, failures: int, chance: float) -> float:
    """How long to wait before the next attempt; *chance* is between 0 and 1."""
    if ended.code in (Close.REFUSED, Close.UNSUPPORTED, 401, 403):
        return _REFUSED * (1 + chance)
    if ended.code == Close.FENCED:
        return _FENCED + chance * 5
    return chance * float(min(_LONG, _SHORT * 2 ** min(failures, 10)))


class Link:
    """Keeps one runner connected for as long as it is asked to."""

    def __init__(self, url: str, credential: str, runner: Runner) -> None:
        self._url = url
        self._headers = {"Authorization": f"Node {credential}"}
        self._runner = runner
        self._socket: ClientConnection | None = None
        self._queue: deque[str | bytes] = deque()
        self._something = asyncio.Event()
        self._dropped: asyncio.Task[None] | None = None
        self._opened_at: float | None = None
        self._leaving = False
        self._fenced = False

    async def keep(self) -> None:
        """Connect, and connect again, until cancelled or after ``leave``.

        Raises Removed when the orchestrator says that there is no such node any longer.
        """
        loop = asyncio.get_running_loop()
        failures, said = 0, ""
        while True:
            self._opened_at = None
            ended = await self._converse()
            if self._leaving:
                return
            if ended.code == Close.REMOVED:
                raise Removed(ended.reason)
            stable = self._opened_at is not None and loop.time() - self._opened_at >= _STABLE
            failures = 0 if stable else failures + 1
            wait = pause(ended, failures, random.random())  # noqa: S311
            if ended.reason != said:
                log.warning("not connected: %s; trying again in %.1f s", ended.reason, wait)
                said = "" if failures == 0 else ended.reason
            await asyncio.sleep(wait)

    def send(self, frame: str | bytes) -> None:
        """Send *frame* after those before it."""
        self._queue.append(frame)
        self._something.set()

    def drop(self, code: int, reason: str) -> None:
        """Close the present link; the next one is made as usual."""
        if self._socket is not None and self._dropped is None:
            self._dropped = asyncio.get_running_loop().create_task(
                _close(self._socket, code, reason)
            )

    async def leave(self, reason: str) -> None:
        """Say goodbye and close."""
        self._leaving = True
        if self._socket is None:
            return
        self._runner.say_goodbye(reason)
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(2):
                while self._queue:
                    await self._socket.send(self._queue.popleft())
                await self._socket.close(1000, reason)

    async def _converse(self) -> Ended:
        try:
            async with connect(
                self._url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers=self._headers,
                user_agent_header="muster-agent",
                compression=None,
                max_size=MAX_FRAME,
                open_timeout=10,
                close_timeout=2,
                ping_interval=None,  # Heartbeats are ours, and so is the deadline for answers.
                proxy=None,
            ) as socket:
                return await self._serve(socket)
        except InvalidStatus as error:
            status = error.response.status_code
            return Ended(status, f"the server answers HTTP {status} to {self._url}")
        except (OSError, InvalidHandshake, InvalidURI, TimeoutError) as error:
            return Ended(0, f"{self._url}: {error or type(error).__name__}")

    async def _serve(self, socket: ClientConnection) -> Ended:
        self._socket, self._opened_at = socket, asyncio.get_running_loop().time()
        self._queue.clear()
        self._runner.opened(self, fenced=self._fenced)
        writer = asyncio.get_running_loop().create_task(self._write(socket))
        try:
            async for frame in socket:
                self._runner.receive(codec.decode_from_server(frame))
        except ConnectionClosed:
            pass
        except (codec.Malformed, codec.TooLarge) as error:
            await _close(socket, Close.MALFORMED, str(error))
        finally:
            writer.cancel()
            self._socket, self._dropped = None, None
            self._runner.closed()
        self._fenced = socket.close_code == Close.FENCED
        code, reason = socket.close_code or 0, " ".join((socket.close_reason or "").split())
        return Ended(code, reason.rstrip(".") or f"the link was closed with code {code}")

    async def _write(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._something.wait()
                self._something.clear()
                while self._queue:
                    await socket.send(self._queue.popleft())


async def _close(socket: ClientConnection, code: int, reason: str) -> None:
    """Close *socket*, or cut it: `close` waits for all that was sent before, however long."""
    try:
        async with asyncio.timeout(_CLOSES_WITHIN):
            await socket.close(code, reason[:120])
    except TimeoutError:
        socket.transport.abort()
