"""Who runs an embedded server: ourselves, or for root, whom PostgreSQL refuses, somebody else."""

import os
import pwd
import shutil
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

from .place import Place, PostgresError

Owner = tuple[int, int] | None
"""User and group that the server runs as, or None for our own."""

SYSTEM_USER = "muster-pg"

CURE = "Start Muster as root or as who made it, or point MUSTER_VAR at a directory of your own."


def owner_of(where: Place) -> Owner:
    """User and group that the server runs as, or None for our own."""
    if where.data.exists():
        kept = where.data.stat()
        if kept.st_uid == os.geteuid() and kept.st_uid != 0:
            return None
        if os.geteuid() != 0:
            raise PostgresError(
                f"{where.data} belongs to another user ({name_of(kept.st_uid)}). {CURE}"
            )
        if kept.st_uid != 0:
            return kept.st_uid, kept.st_gid
    if os.geteuid() != 0:
        return None
    entry = _system_user()
    return entry.pw_uid, entry.pw_gid


def _system_user() -> pwd.struct_passwd:
    """Find, or make, the user that runs the server for root; `nobody` where none can be made."""
    with suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    for command in (
        "useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /bin/false",
        "adduser -S -D -H -h /nonexistent -s /bin/false",  # As Busybox spells it.
    ):
        program, *options = command.split()
        if shutil.which(program):
            subprocess.run([program, *options, SYSTEM_USER], capture_output=True, check=False)
            break
    with suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    with suppress(KeyError):
        return pwd.getpwnam("nobody")
    raise PostgresError(
        "PostgreSQL refuses to run as root, and no other user could be found or made. Start "
        f"Muster as an ordinary user, or make one called {SYSTEM_USER}."
    )


def name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def own(directory: Path, owner: Owner) -> None:
    """Make *directory* private to *owner*; refuse one that somebody else prepared for us."""
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    uid, gid = owner or (os.geteuid(), os.getegid())
    if stat.S_ISLNK(found.st_mode) or found.st_uid not in {uid, os.geteuid()}:
        raise PostgresError(f"{directory} belongs to {name_of(found.st_uid)}; remove it first.")
    if found.st_uid != uid:
        os.chown(directory, uid, gid)
    directory.chmod(0o700)
