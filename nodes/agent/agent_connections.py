"""The agents that are connected to a spawner, and what they have not read yet.

Standard library only; part of the spawner, see there for how it is loaded.
"""
# ruff: noqa: PTH101, PTH108

from __future__ import annotations

import collections
import contextlib
import os
import select
import socket

VERSION = b"7"
_PACKET = 1 << 20
#: Packets kept for an agent that does not read; then it is cut off, and finds all in the journal.
_BACKLOG = 10_000


class Connections(dict[int, "Connection"]):
    """All connections, by their descriptors, which *poll* watches."""

    def __init__(self, poll: select.poll) -> None:
        super().__init__()
        self.poll = poll

    def open(self, link: socket.socket) -> None:
        """Take a connection, and say which version this is."""
        link.setblocking(False)
        link.set_inheritable(False)
        with contextlib.suppress(OSError):
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PACKET)
        self[link.fileno()] = connection = Connection(link)
        self.poll.register(link, select.POLLIN)
        self.send(connection, b"hello\0" + VERSION)

    def close(self, connection: Connection) -> None:
        descriptor = connection.link.fileno()
        if self.pop(descriptor, None) is not None:
            self.poll.unregister(descriptor)
            connection.link.close()

    def send(self, connection: Connection, packet: bytes) -> None:
        """Send *packet* after those before it; who does not read is cut off."""
        connection.waiting.append(packet)
        if len(connection.waiting) == 1:
            self.flush(connection)
        elif len(connection.waiting) > _BACKLOG:
            self.close(connection)

    def flush(self, connection: Connection) -> None:
        """Send what there is room for."""
        if connection.link.fileno() < 0:
            return
        try:
            while connection.waiting:
                connection.link.send(connection.waiting[0])
                connection.waiting.popleft()
        except BlockingIOError:
            self.poll.modify(connection.link, select.POLLIN | select.POLLOUT)
            return
        except OSError:
            self.close(connection)
            return
        self.poll.modify(connection.link, select.POLLIN)

    def tell(self, packet: bytes) -> None:
        """Send *packet* to all."""
        for connection in list(self.values()):
            self.send(connection, packet)


class Connection:
    """An agent, and the packets it has not taken yet."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.waiting: collections.deque[bytes] = collections.deque()

    def receive(self) -> bytes | None:
        """The next packet, empty at the end; None when there is none now, or never again."""
        try:
            return self.link.recv(_PACKET) if self.link.fileno() >= 0 else None
        except BlockingIOError:
            return None
        except OSError:
            return b""


def listen(path: str) -> socket.socket:
    """The socket at *path* by which later agents connect."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(8)
    listener.setblocking(False)
    return listener
