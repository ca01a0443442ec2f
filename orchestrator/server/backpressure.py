"""Streams that are sent no faster than they are read."""

from __future__ import annotations

from typing import Any, Protocol

Application = Any  # Django and Channels each have a type of their own for what is one thing.

EXTENSION = "muster.outgoing"
"""Where the scope has what is on its way to the client, if the server knows: see `web_server`."""

MOST_OF_A_PAGE = 1024 * 1024
"""Bytes that wait for the socket of one page, at most."""


class Outgoing(Protocol):
    most: int

    async def room(self) -> None: ...

    def count_no_longer(self) -> None: ...


def as_fast_as_read(application: Application) -> Application:
    """Have *application* send its streams no faster than their readers take them.

    That is what it answers in pieces, and the binary messages of a websocket. Text is not waited
    for: it is short, and who sends it also has to hear; a page that leaves it lying is let go.
    """

    async def serve(scope: Any, receive: Any, send: Any) -> Any:
        outgoing: Outgoing | None = scope.get("extensions", {}).get(EXTENSION)
        if outgoing is None:  # Another server, as in tests.
            return await application(scope, receive, send)
        outgoing.most = MOST_OF_A_PAGE

        async def send_and_wait(message: Any) -> None:
            await send(message)
            if message.get("more_body") or message.get("bytes"):
                await outgoing.room()

        return await application(scope, receive, send_and_wait)

    return serve


def uncounted_once_greeted(application: Application) -> Application:
    """Count a websocket for its address until *application* says its first word: then it is known.

    A thousand nodes may have one address.
    """

    async def serve(scope: Any, receive: Any, send: Any) -> Any:
        outgoing: Outgoing | None = scope.get("extensions", {}).get(EXTENSION)
        if outgoing is None:
            return await application(scope, receive, send)

        async def send_and_forget(message: Any) -> None:
            if message["type"] == "websocket.send":
                outgoing.count_no_longer()
            await send(message)

        return await application(scope, receive, send_and_forget)

    return serve
