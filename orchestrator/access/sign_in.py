"""How often somebody may try a password, or a token, that is wrong: counted in the database.

An attempt counts before it is looked at, so that a hundred at once are a hundred; one that was
right is forgiven.  Who tries a name that is there learns no more than who tries one that is not.
"""

from __future__ import annotations

import ipaddress
import logging
import time
import unicodedata
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now

from orchestrator.explain.errors import TooManyAttempts
from orchestrator.explain.formatting import counted
from orchestrator.models import FailedSignIns, journal
from orchestrator.models.pruning import delete_some

from .users import actor_of

logger = logging.getLogger(__name__)

WINDOW = timedelta(minutes=15)
"""How long failures are counted together, and how long a lock lasts."""

MOST_OF_A_NAME, MOST_OF_AN_ADDRESS, MOST_TOKENS = 10, 50, 100
"""Failures within the window: of one name from one address, of an address, of tokens from one."""

TOLD_FROM = 3
"""Failures from which on the journal tells that the right password came in the end."""

ASKED_AGAIN = 5.0
"""Seconds for which a process believes that an address is locked, without asking."""

_locked: dict[str, float] = {}
_MOST_LOCKED = 1024


@lru_cache(4096)
def source(address: str) -> str:
    """Who counts as one: an address, of IPv6 the network that one customer has."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


def attempt_password(name: str, address: str) -> None:
    """Count an attempt to sign in as *name*, before its password is looked at.

    Raises TooManyAttempts, whether there is such a user or not.
    """
    name, address = _named(name), source(address)
    with transaction.atomic():
        wait = _count("password", "", address, MOST_OF_AN_ADDRESS)
        if not wait and name:
            wait = _count("password", name, address, MOST_OF_A_NAME)
    if wait:
        raise TooManyAttempts(minutes=-(-wait // 60), retry_after=wait)


def succeeded(user: User, name: str, address: str) -> None:
    """The attempt was right: forget those for this name, and tell if they were many."""
    name, address = _named(name), source(address)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE orchestrator_failedsignins SET count = greatest(count - 1, 0)"
            " WHERE door = 'password' AND name = '' AND address = %s",
            [address],
        )
        cursor.execute(
            "DELETE FROM orchestrator_failedsignins WHERE door = 'password' AND name = %s"
            " AND address = %s RETURNING count - 1",
            [name, address],
        )
        failed = (cursor.fetchone() or [0])[0]
        if failed >= TOLD_FROM:
            what = (
                f"{user.get_username()} signs in from {address} after {counted(failed, 'failure')}"
            )
            journal.record([journal.fact("access", "sign-in", what, actor=actor_of(user))])


def failed(name: str, address: str) -> None:
    """Leave a line in the log; a name that nobody has may be a password, and is not told."""
    logger.warning("a sign-in failed: %s from %s", _person(_named(name)), source(address))


def refuse_locked(address: str) -> None:
    """Raise TooManyAttempts for an address known to be locked for tokens; asks nobody."""
    until = _locked.get(source(address))
    if until is not None and (left := until - time.monotonic()) > 0:
        raise TooManyAttempts(minutes=1, retry_after=max(1, round(left)))


def bad_token(address: str) -> None:
    """Count a token that is none; raises TooManyAttempts when they were many."""
    address = source(address)
    with transaction.atomic():
        wait = _count("token", "", address, MOST_TOKENS)
    if wait:
        if len(_locked) >= _MOST_LOCKED:
            _locked.clear()
        _locked[address] = time.monotonic() + min(wait, ASKED_AGAIN)
        raise TooManyAttempts(minutes=-(-wait // 60), retry_after=wait)


def unlock(rows: Sequence[FailedSignIns], actor: str) -> int:
    """Forget the failures in *rows*; how many there were.

    Other processes refuse bad tokens for some seconds more.
    """
    in_order = sorted(rows, key=lambda it: (it.door, it.address, it.name))  # As those who count.
    with transaction.atomic():
        done = [it for it in in_order if FailedSignIns.objects.filter(pk=it.pk).delete()[0]]
        journal.record(
            journal.fact("access", "unlock", f"Sign-in of {_subject(it)} is unlocked", actor=actor)
            for it in done
        )
    _locked.clear()
    return len(done)


def forget_old() -> None:
    """Drop what no longer counts, a bounded number at a time."""
    unlocked = Q(locked_until=None) | Q(locked_until__lt=Now())
    delete_some(FailedSignIns.objects.filter(unlocked, since__lt=Now() - WINDOW))


def _count(door: str, name: str, address: str, most: int) -> int:
    """Count one more; the seconds for which there may be no other, 0 where this one may be."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO orchestrator_failedsignins AS a (door, name, address, count)
            VALUES (%(door)s, %(name)s, %(address)s, 1)
            ON CONFLICT (door, name, address) DO UPDATE SET (count, since, locked_until) = (
                SELECT CASE WHEN anew THEN 1 ELSE a.count + 1 END,
                       CASE WHEN anew THEN moment ELSE a.since END,
                       CASE WHEN anew THEN NULL
                            WHEN a.locked_until IS NULL AND a.count >= %(most)s
                            THEN moment + make_interval(secs => %(window)s)
                            ELSE a.locked_until END
                FROM (SELECT statement_timestamp()) AS clock(moment),
                     LATERAL (SELECT a.since < moment - make_interval(secs => %(window)s)
                              AND coalesce(a.locked_until, a.since) <= moment) AS it(anew))
            RETURNING id, count, ceil(extract(epoch FROM locked_until - statement_timestamp()))::int
            """,
            {
                "door": door,
                "name": name,
                "address": address,
                "most": most,
                "window": WINDOW.total_seconds(),
            },
        )
        key, count, wait = cursor.fetchone()
    if wait and count == most + 1:
        row = FailedSignIns(pk=key, door=door, name=name, address=address)
        minutes = WINDOW.seconds // 60
        what = f"Sign-in of {_subject(row)} is locked for {minutes} minutes: {most} attempts failed"
        journal.record([journal.fact("access", "lock", what)])
        logger.warning("%s", what)
    return int(wait or 0)


def _subject(row: FailedSignIns) -> str:
    if row.door == "token":
        return f"API tokens from {row.address or 'a local socket'}"
    who = _person(row.name) if row.name else "anybody"
    return f"{who} from {row.address or 'a local socket'}"


def _person(name: str) -> str:
    return name if User.objects.filter(username=name).exists() else "an unknown user"


def _named(name: str) -> str:
    """*name* as it is looked up, and as far as a row has room for it."""
    return unicodedata.normalize("NFKC", name).replace("\0", "").strip()[:150]
