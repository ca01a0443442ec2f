"""Where an embedded server lies, and whether those who must can reach it."""

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import make_conninfo

DATABASE = "muster"

SUPERUSER = "muster"
"""Whom `initdb` makes: used by who runs the server, to make the other two."""
OWNER = "muster_owner"
"""Whose the schema is: commands of operators run as it, migrations first of all."""
APPLICATION = "muster_app"
"""Whom web and workers are: reads and writes rows, and cannot change what keeps them true."""

SEGMENT = 16 << 20
"""PostgreSQL writes ahead in files of this size, and cannot go on without the next one."""

LONGEST_SOCKET_PATH = 107
PLAIN = re.compile(r"[\w./+@-]+", re.ASCII)
"""Socket directories that need no quoting: libpq cannot quote a comma, it takes a list of hosts."""

SOCKET = ".s.PGSQL.5432"
OUTSIDE = Path("/var/lib/muster")
"""Where root keeps a server whose own directory the server's user could not reach."""


class PostgresError(Exception):
    """The embedded database cannot be used; the message says why, and what to do."""


class Taken(PostgresError):
    """Somebody else runs the server of this directory already."""


@dataclass(frozen=True)
class Place:
    """Where one embedded server lies."""

    home: Path
    sockets: Path

    @property
    def data(self) -> Path:
        """PostgreSQL's own directory."""
        return self.home / "data"

    @property
    def lock(self) -> Path:
        """Locked by the supervisor; its text says who that is."""
        return self.home / "supervisor.lock"

    @property
    def log(self) -> Path:
        """What the server prints; what it printed long ago is in the file of the same name + .1."""
        return self.home / "postgres.log"

    @property
    def passwords(self) -> Path:
        """The password of each role, in libpq's form, for who runs Muster alone."""
        return self.home / "passwords"

    def conninfo(self, database: str = DATABASE, user: str = OWNER) -> str:
        """Say how to connect, in libpq's words."""
        return make_conninfo(
            host=str(self.sockets),
            user=user,
            dbname=database,
            passfile=str(self.passwords),
            connect_timeout=5,
        )


def place(directory: Path) -> Place:
    """Say where the server of *directory* lies: there, unless its user or its socket cannot.

    The answer depends only on the directory, so every process comes to the same one. It is the
    directory itself, whatever symbolic links lead there.
    """
    named, home = directory.absolute(), directory.resolve()
    if os.geteuid() == 0 and not (all_may_pass(named.parent) and all_may_pass(home.parent)):
        home = OUTSIDE / f"postgres-{_short(named)}"
    sockets = home / "run"
    too_long = len(os.fsencode(sockets / SOCKET)) > LONGEST_SOCKET_PATH
    if too_long or not PLAIN.fullmatch(str(sockets)):
        sockets = Path(f"/tmp/muster-{os.geteuid()}-{_short(home)}")  # noqa: S108 - own() checks it
    return Place(home, sockets)


def _short(path: Path) -> str:
    """A short name that no other path has."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def all_may_pass(directory: Path) -> bool:
    """Whether any user may go through *directory*; what does not exist yet will be made so."""
    return all(
        ancestor.stat().st_mode & stat.S_IXOTH
        for ancestor in (directory, *directory.parents)
        if ancestor.exists()
    )
