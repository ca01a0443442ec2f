"""`python -m tests.server.streaming SOCKET`: streams behind the Daphne of `manage.py web`."""

import asyncio
import json
import struct
import sys
from contextlib import suppress

import django
import psutil
from asgiref.sync import async_to_sync, sync_to_async

django.setup()  # What counts connections knows of users, too.

from orchestrator.management.commands.web import FLAGS  # noqa: E402
from orchestrator.server.backpressure import as_fast_as_read  # noqa: E402
from orchestrator.server.web_server import WebCommandLine, WebServer  # noqa: E402

PIECE = 64 * 1024
STALLED_AFTER = 3.0
produced: dict[str, int] = {}
ended: list[str] = []


async def endless(name, send_piece):
    """Numbers of eight bytes, as fast as they are taken."""
    produced[name] = 0
    try:
        while True:
            first = produced[name] // 8
            numbers = range(first, first + PIECE // 8)
            await send_piece(struct.pack(f">{PIECE // 8}Q", *numbers))
            produced[name] += PIECE
            await asyncio.sleep(0)
    finally:
        ended.append(name)


async def until_gone(doing, receive, kind):
    task = asyncio.ensure_future(doing)
    while not task.done() and (await receive())["type"] != kind:
        pass
    task.cancel()
    await asyncio.wait({task})


async def application(scope, receive, send):
    name = scope["path"].strip("/")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        if name == "words":
            await words(receive, send)
            return
        pieces = endless(name, lambda data: send({"type": "websocket.send", "bytes": data}))
        await until_gone(pieces, receive, "websocket.disconnect")
        return

    async def body(data, more_body=True):
        await send({"type": "http.response.body", "body": data, "more_body": more_body})

    await send({"type": "http.response.start", "status": 200, "headers": []})
    if name.startswith("endless"):
        await until_gone(endless(name, body), receive, "http.disconnect")
    elif name == "broken":
        await body(b"begun")
        raise OSError("it broke")
    elif name == "short":
        for number in range(3):
            await body(b"%d" % number)
        await body(b"", more_body=False)
    elif name == "waits":
        await body(b"begun")
        await sync_to_async(async_to_sync(longer_than_the_loop))()
    elif name == "large":
        await body(b"x" * 8 * 1024 * 1024, more_body=False)
    else:
        known = {
            "produced": produced,
            "ended": ended,
            "rss": psutil.Process().memory_info().rss,
            "connections": len(command.server.connections),
        }
        await body(json.dumps(known).encode(), more_body=False)


async def longer_than_the_loop():
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def words(receive, send):
    """Answer whatever is said, in text."""
    produced["words"] = 0
    while (await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": "x" * 1000})
        produced["words"] += 1000
    ended.append("words")


WebServer.stalled_after = STALLED_AFTER
command = WebCommandLine()
sys.modules["streaming_application"] = sys.modules[__name__]
served = as_fast_as_read(application)

if __name__ == "__main__":
    command.run([*FLAGS, "-u", sys.argv[1], "streaming_application:served"])
