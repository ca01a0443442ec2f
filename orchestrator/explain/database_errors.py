"""What a database error means: one code, one sentence and one cure, however the driver says it."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import psycopg
from django.db.utils import InterfaceError, OperationalError
from psycopg_pool import PoolTimeout


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is the matter, in words; *total* if nothing at all can be asked while it lasts."""

    code: str
    sentence: str
    cure: str
    total: bool = False


FULL = Trouble(
    "database-full",
    "The database has no space left on its disk.",
    "Make room where the database lies; Muster then goes on by itself.",
)
READ_ONLY = Trouble(
    "database-read-only",
    "The database is read-only: it takes no changes.",
    "Point Muster at the primary server, or reset default_transaction_read_only.",
)
TOO_MANY_CONNECTIONS = Trouble(
    "database-connections",
    "The database has no connection left for Muster.",
    "End other clients of the database, or raise its max_connections.",
)
NO_FILES = Trouble(
    "process-files",
    "This process may open no more files, so it reaches no database.",
    "Raise the limit (ulimit -n, LimitNOFILE=) and start it again.",
    total=True,
)
STARTING = Trouble(
    "database-starting",
    "The database is starting, recovering or stopping.",
    "Wait: Muster goes on by itself when the database does.",
    total=True,
)
UNREACHABLE = Trouble(
    "database-unreachable",
    "The database cannot be reached.",
    "Start it, or see why it ended; Muster then goes on by itself.",
    total=True,
)
SILENT = Trouble(
    "database-silent",
    "The database does not answer.",
    "See whether its server is stopped or overloaded; Muster goes on by itself when it answers.",
    total=True,
)
REFUSED = Trouble(
    "database-refused",
    "The database does not let Muster in.",
    "Check user, password and database name in DATABASE_URL.",
    total=True,
)
NO_RIGHTS = Trouble(
    "database-rights",
    "The database role of Muster lacks a right that it needs.",
    "Run `manage.py migrate` as the owner of the schema, which gives it all of them.",
)
POOL_EXHAUSTED = Trouble(
    "busy",
    "All database connections of this process are in use.",
    "Try again in a moment.",
)
TOO_SLOW = Trouble(
    "busy", "The database did not answer in time: a statement took too long.", "Try again."
)
LOCKED = Trouble(
    "busy", "The database did not answer in time: somebody else holds what is needed.", "Try again."
)
OVERDUE = Trouble(
    "busy",
    "The database has undone a change that was not finished in time.",
    "Try again.",
)
COLLISION = Trouble("busy", "Two changes of the same thing got in each other's way.", "Try again.")

_BY_STATE: dict[str, Trouble] = {
    "53100": FULL,
    "25006": READ_ONLY,
    "53300": TOO_MANY_CONNECTIONS,
    "57P01": STARTING,
    "57P02": STARTING,
    "57P03": STARTING,
    "57014": TOO_SLOW,
    "55P03": LOCKED,
    "25P03": OVERDUE,  # idle_in_transaction_session_timeout
    "25P04": OVERDUE,  # transaction_timeout
    "40001": COLLISION,
    "40P01": COLLISION,
    "28000": REFUSED,
    "28P01": REFUSED,
    "3D000": REFUSED,
    "42501": NO_RIGHTS,
}
"""By SQLSTATE, as PostgreSQL's manual lists them in appendix A."""

_BY_WORDS: tuple[tuple[str, Trouble], ...] = (
    ("No space left on device", FULL),
    ("too many clients", TOO_MANY_CONNECTIONS),
    ("too many connections", TOO_MANY_CONNECTIONS),
    ("remaining connection slots", TOO_MANY_CONNECTIONS),
    ("the database system is", STARTING),
    ("timeout expired", SILENT),
    ("authentication failed", REFUSED),
    ("no pg_hba.conf entry", REFUSED),
    ("no password supplied", REFUSED),
)
"""A refused connection carries no SQLSTATE, only the server's words."""


def classify(error: BaseException | None) -> Trouble | None:
    """Say what is the matter when *error* came of the database's state; None if it did not.

    That there is no way to it, as this process has no files left, counts as such.
    """
    cause = error
    while cause is not None:
        if isinstance(cause, PoolTimeout):
            return POOL_EXHAUSTED
        if isinstance(cause, psycopg.Error):
            return _of(cause)
        if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
            return NO_FILES
        cause = cause.__cause__  # Django raises errors of its own from the driver's.
    gone = (OperationalError, InterfaceError)  # Or by itself, when it knows that all is over.
    return UNREACHABLE if isinstance(error, gone) else None


def _of(error: psycopg.Error) -> Trouble | None:
    state = error.sqlstate or ""
    if state in _BY_STATE:
        return _BY_STATE[state]
    if state and not state.startswith("08"):
        return None  # The server understood, and said what was wrong with the statement.
    words = str(error)
    for fragment, trouble in _BY_WORDS:
        if fragment in words:
            return trouble
    gone = (psycopg.OperationalError, psycopg.InterfaceError)
    return UNREACHABLE if isinstance(error, gone) else None
