"""Around the whole application: an answer at once while the database answers nothing."""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import Any

from django.core.handlers.asgi import ASGIRequest

from orchestrator.endpoint.health import Watch
from orchestrator.explain.database_errors import Trouble
from orchestrator.server import error_pages

Application = Any  # Django and Channels each have a type of their own for what is one thing.

NEEDS_NO_DATABASE = ("/healthz", "/readyz", "/static/")
LOOK_EVERY = 0.25
"""Seconds after which a request under way is looked after again."""


def answering_without_database(application: Application, watch: Watch) -> Application:
    """Answer 503 at once for as long as *watch* says that the database answers nothing.

    Also to requests that are under way: the thread that waits for the database is left to it.
    """
    left: set[asyncio.Task[None]] = set()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        watch.start()
        if scope["path"].startswith(NEEDS_NO_DATABASE):
            await application(scope, receive, send)
            return
        if (outage := watch.outage()) is not None:
            await _refuse(scope, send, outage)
            return
        reply = _Reply(send)
        inner = asyncio.create_task(application(scope, receive, reply.send))
        try:
            while not inner.done() and not reply.begun:
                await asyncio.wait({inner}, timeout=LOOK_EVERY)
                outage = watch.outage()
                if outage is not None and not inner.done() and not reply.begun:
                    reply.withheld = True
                    left.add(inner)
                    inner.add_done_callback(left.discard)
                    inner.add_done_callback(_forget)
                    await _refuse(scope, send, outage)
                    return
            await inner
        except asyncio.CancelledError:
            inner.cancel()
            raise

    return answer


class _Reply:
    """The way back to the client, as long as nobody else has taken it."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self.begun = self.withheld = False

    async def send(self, message: Any) -> None:
        if not self.withheld:
            self.begun = True
            await self._send(message)


async def _refuse(scope: Any, send: Any, outage: Trouble) -> None:
    request = ASGIRequest(scope, BytesIO())
    response = error_pages.unavailable(request, outage)
    headers = [(name.encode(), value.encode()) for name, value in response.items()]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.content})


def _forget(done: asyncio.Task[None]) -> None:
    """Take what became of an answer that nobody waits for; it has been logged below."""
    if not done.cancelled():
        done.exception()
