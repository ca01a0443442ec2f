"""The embedded PostgreSQL: one private server below one directory, for as long as somebody runs it.

Whoever holds the lock of a directory is the supervisor of its server: the server is its child and
ends with it, even when the supervisor is killed. Everybody else only connects, by a password.
"""

from .place import (
    APPLICATION,
    DATABASE,
    LONGEST_SOCKET_PATH,
    OWNER,
    SEGMENT,
    SOCKET,
    SUPERUSER,
    Place,
    PostgresError,
    Taken,
    place,
)
from .server import Server, available, is_running, running

__all__ = [
    "APPLICATION",
    "DATABASE",
    "LONGEST_SOCKET_PATH",
    "OWNER",
    "SEGMENT",
    "SOCKET",
    "SUPERUSER",
    "Place",
    "PostgresError",
    "Server",
    "Taken",
    "available",
    "is_running",
    "place",
    "running",
]
