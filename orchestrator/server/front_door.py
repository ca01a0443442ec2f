"""Before Django: whose address it is, how often it may ask, and how long a failed sign-in takes.

The address of a client is that of its connection, unless that comes from a proxy of ours, which
says whom it speaks for.  Nobody else is believed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Collection
from typing import Any

from django.conf import settings

from orchestrator.access.limits import requests_of_addresses
from orchestrator.access.sign_in import source
from orchestrator.explain.errors import TooManyRequests
from orchestrator.server.backpressure import Application

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Headers = list[tuple[bytes, bytes]]

TOO_MANY = 4429
"""With this code a socket is closed whose user, or address, has too many."""

SIGN_IN = ("/accounts/login/", "/admin/login/")
FAILED_AFTER = 1.0
"""Seconds after which a failed sign-in is answered, whatever took how long."""

_TOLD_BY_PROXIES = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-real-ip")
_NODES = "/ws/nodes/"


def at_the_door(
    application: Application,
    *,
    proxies: Collection[Network] = settings.TRUSTED_PROXIES,
    failed_after: float = FAILED_AFTER,
) -> Application:
    """*application*, for who asks not too often, and with the address that they really have."""

    async def serve(scope: Any, receive: Any, send: Any) -> Any:
        scope = seen_through(scope, proxies)
        try:
            if scope["path"] != _NODES:  # Those have limits of their own.
                address = source((scope.get("client") or [""])[0])
                requests_of_addresses.count(address, address or "this socket")
        except TooManyRequests as error:
            return await _refuse(scope, receive, send, error)
        if scope.get("method") == "POST" and scope["path"] in SIGN_IN:
            send = _not_before(asyncio.get_running_loop().time() + failed_after, send)
        return await application(scope, receive, send)

    return serve


def seen_through(scope: Any, proxies: Collection[Network]) -> Any:
    """*scope* with the client whom a proxy of ours speaks for; of others without such headers."""
    peer = scope.get("client")
    if not proxies:
        return scope
    if peer is None or not is_of(peer[0], proxies):
        kept = [it for it in scope["headers"] if it[0].lower() not in _TOLD_BY_PROXIES]
        return {**scope, "headers": kept}
    client = peer[0]
    for said in reversed(_forwarded_for(scope["headers"])):
        if (found := _address(said)) is None:
            break
        client = found
        if not is_of(client, proxies):
            break
    return {**scope, "client": [client, 0]} if client != peer[0] else scope


def _forwarded_for(headers: Headers) -> list[str]:
    values = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    return ",".join(values).split(",") if values else []


def _address(said: str) -> str | None:
    """The address in one entry, which may have a port."""
    said = said.strip()
    if said.startswith("["):
        said = said[1:].partition("]")[0]
    elif said.count(":") == 1:
        said = said.partition(":")[0]
    try:
        return str(ipaddress.ip_address(said))
    except ValueError:
        return None


def is_of(address: str, proxies: Collection[Network]) -> bool:
    """Whether *address* is that of one of *proxies*."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None) or ip
    return any(mapped in it for it in proxies)


def _not_before(moment: float, send: Any) -> Any:
    """*send*, which keeps what is no redirection, a failure, until *moment*."""

    async def late(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] != 302:
            await asyncio.sleep(moment - asyncio.get_running_loop().time())
        await send(message)

    return late


async def _refuse(scope: Any, receive: Any, send: Any, error: TooManyRequests) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": TOO_MANY})
        return
    said = {"status": 429, "code": error.code, "detail": str(error), "hint": error.hint}
    body, kind = json.dumps(said).encode(), b"application/problem+json"
    if not scope["path"].startswith("/api/"):
        body, kind = f"{error} {error.hint}\n".encode(), b"text/plain; charset=utf-8"
    headers = [(b"content-type", kind), (b"retry-after", b"1"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 429, "headers": headers})
    await send({"type": "http.response.body", "body": body})
