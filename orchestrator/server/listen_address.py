"""The address that `up` listens on: whether it can, and where its own parts reach it."""

import errno
import socket

HIGHEST_PORT = 65535
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what somebody may ask for
"""Addresses that mean all of this machine's, and the one by which it reaches itself."""


class CannotListen(Exception):
    """Nothing can listen there; the message says why, and what to do."""


def raise_unless_address(host: str, port: int) -> None:
    """Raise `CannotListen` unless *host* and *port* are an address, be it free or not."""
    if not 1 <= port <= HIGHEST_PORT:
        raise CannotListen(f"--port is {port}; say a number from 1 to {HIGHEST_PORT}.")
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as why:
        raise CannotListen(
            f"--host is {host!r}, which is no address ({why.strerror}); say one of this machine."
        ) from None


def raise_unless_free(host: str, port: int) -> None:
    """Raise `CannotListen` unless somebody can listen on *port* of *host* now."""
    raise_unless_address(host, port)
    try:
        _bind(host, port)
    except OSError as why:
        raise CannotListen(_sentence(host, port, why)) from None


def url(host: str, port: int) -> str:
    """Say where this machine reaches what listens on *port* of *host*."""
    host = ANYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bind(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # As Daphne will do.
        probe.bind(address)


def _sentence(host: str, port: int, why: OSError) -> str:
    where = url(host, port).removeprefix("http://") if host not in ANYWHERE else f"port {port}"
    match why.errno:
        case errno.EADDRINUSE:
            return f"Something else listens on {where} already.{_another(host, port)}"
        case errno.EADDRNOTAVAIL:
            return f"--host is {host!r}, which is no address of this machine; say one that is."
        case errno.EACCES:
            cure = _another(host, max(port, 1023))
            return f"Only root may listen on port {port}.{cure}"
    return f"Nothing can listen on {where}: {why.strerror}."


def _another(host: str, port: int) -> str:
    """Name the next port that can be had."""
    for other in range(port + 1, min(port + 100, HIGHEST_PORT + 1)):
        try:
            _bind(host, other)
        except OSError:
            continue
        return f' Take another: make up ARGS="--port {other}".'
    return ""
