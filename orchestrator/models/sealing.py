"""Seals the values of secrets with keys that no table holds.

The keys lie in a file, one a line; the first one seals, each of them opens.  So a new first line
is a new key, and the old ones go when everything has been sealed anew: ``manage.py
rotate_secrets`` does both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import connection

from orchestrator.explain.errors import NoSecretsKey, SecretUnreadable

_LOCK = 0x5EC2E75


def seal(namespace: str, name: str, value: str) -> str:
    """*value*, to be opened with the keys and for this secret alone."""
    return _keys(may_make=True).encrypt(json.dumps([namespace, name, value]).encode()).decode()


def opened(namespace: str, name: str, sealed: str) -> str:
    """The value; raises SecretUnreadable, or NoSecretsKey."""
    try:
        *whose, value = json.loads(_keys().decrypt(sealed))
    except InvalidToken:
        raise SecretUnreadable(name=name) from None
    if whose != [namespace, name]:  # Somebody has moved the row.
        raise SecretUnreadable(name=name)
    return str(value)


def hold_keys(*, alone: bool = False) -> None:
    """Until the transaction ends nobody changes the keys, or, *alone*, seals anything."""
    shared = "" if alone else "_shared"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_xact_lock{shared}(%s)", [_LOCK])


def sealed_anew(namespace: str, name: str, sealed: str) -> str:
    """The same, sealed with the first key; raises as `opened` does."""
    return seal(namespace, name, opened(namespace, name, sealed))


def are_newest(sealed: Iterable[str]) -> bool:
    """Whether the first key opens all of them, so that the others are not needed."""
    file: Path = settings.SECRETS_KEY_FILE
    _keys()
    first = Fernet(file.read_text().split()[0])
    try:
        for one in sealed:
            first.decrypt(one)
    except InvalidToken:
        return False
    return True


def new_first_key() -> None:
    """Seal with a new key from now on; the others still open."""
    file: Path = settings.SECRETS_KEY_FILE
    _keys(may_make=True)
    _write(file, Fernet.generate_key().decode() + "\n" + file.read_text(), replacing=True)


def only_first_key() -> None:
    """Forget every key but the first."""
    file: Path = settings.SECRETS_KEY_FILE
    _keys()
    _write(file, file.read_text().split()[0] + "\n", replacing=True)


def _keys(*, may_make: bool = False) -> MultiFernet:
    """The keys in the file, as they are now; with *may_make* there is one afterwards."""
    file: Path = settings.SECRETS_KEY_FILE
    try:
        if may_make and not file.exists() and not settings.SECRETS_KEY_FILE_IS_GIVEN:
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(file, Fernet.generate_key().decode() + "\n", replacing=False)
        status = file.stat()
        if status.st_mode & 0o077:
            raise NoSecretsKey(
                file=file, why="others than its owner may read it", do="chmod 600 it"
            )
        return _read(file, status.st_mtime_ns, status.st_ino)
    except FileNotFoundError:
        do = "bring the file back from a backup, or make one as docs/secrets.md says"
        raise NoSecretsKey(file=file, why="it is not there", do=do) from None
    except OSError as error:
        do = "let the user that Muster runs as read it"
        raise NoSecretsKey(file=file, why=str(error.strerror), do=do) from None
    except ValueError:
        do = "write keys there as docs/secrets.md says, one a line"
        raise NoSecretsKey(file=file, why="it has no key, or one that is none", do=do) from None


@lru_cache(maxsize=2)
def _read(file: Path, _changed: int, _inode: int) -> MultiFernet:
    return MultiFernet([Fernet(line) for line in file.read_text().split()])


def _write(file: Path, text: str, *, replacing: bool) -> None:
    """Write the file, all or nothing; of several processes that make it, the first wins."""
    mine = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    if replacing:
        mine.replace(file)
        return
    with suppress(FileExistsError):
        file.hardlink_to(mine)
    mine.unlink()
