"""Does the cluster take jobs, and what is the matter if it does not?"""

from __future__ import annotations

import copy
import logging
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from django.conf import settings
from django.db import Error, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor

from orchestrator import broker
from orchestrator.explain.database_errors import (
    FULL,
    POOL_EXHAUSTED,
    READ_ONLY,
    SILENT,
    UNREACHABLE,
    Trouble,
    classify,
)
from orchestrator.explain.formatting import counted, duration
from orchestrator.models import journal

logger = logging.getLogger(__name__)

MOST_NAMED = 3
"""Silent workers that a warning names."""

SILENCE = timedelta(seconds=30)
"""A worker that said nothing for this long is not counted on."""

SILENT_LEASE = 10.0
"""Seconds after which a worker that holds leases and says nothing is named: five of its beats."""

SLOW = 5.0
"""When jobs have been ready for so many seconds and nothing was leased, nobody evaluates."""

EVERY, PATIENCE = 0.4, 1.4
"""Seconds between two looks, and how long one may take; together less than two."""

REMEMBERED = 10.0
"""Seconds for which a full or read-only database is believed to be so: reading does not tell."""

ROOM = 1 << 20
"""Bytes without which a disk counts as full, though the database still answers."""

MIGRATE = Trouble("migrations", "The database has migrations to apply: manage.py migrate.", "")
NO_WORKER = Trouble("no-worker", "No worker has been heard of lately: manage.py worker.", "")
UNKNOWN = Trouble("unknown", "The state of the cluster cannot be read.", "The log says why.")

_migrated = False
"""Migrations are never taken back under a running server, so a yes is kept."""

_seen_writing: tuple[journal.Writer, float] | None = None
"""Who was seen to write events at the last look, and since when; of other database roles'
sessions the database itself does not tell that."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the cluster is: *trouble* keeps it from taking jobs, *warning* from getting on."""

    trouble: Trouble | None = None
    warning: str = ""


def current() -> Health:
    """Say how the cluster is: at once where a watch runs, as it does in every web process."""
    if watch.is_running:
        return watch.health()
    try:
        return look(connection)
    except Error as error:
        return Health(classify(error) or UNKNOWN)


def trouble_behind(error: BaseException) -> Trouble | None:
    """Say what is the matter with the database if that is why *error* was raised."""
    trouble = classify(error)
    if trouble is None:
        return None
    if trouble in (FULL, READ_ONLY):
        watch.remember(trouble)
    if trouble in (POOL_EXHAUSTED, UNREACHABLE) and watch.is_running:
        return watch.health().trouble or trouble  # It knows why there was no connection.
    return trouble


# --- one look ------------------------------------------------------------------------------------


def look(database: BaseDatabaseWrapper) -> Health:
    """Ask *database* how the cluster is; raises what the driver raises."""
    if not _is_migrated(database):
        return Health(MIGRATE)
    with database.cursor() as cursor:
        cursor.execute("SHOW transaction_read_only")
        if cursor.fetchone()[0] == "on":
            return Health(READ_ONLY)
        cursor.execute(_WORKERS, [SILENCE.total_seconds()])
        if not any(_lives(host, pid) for host, pid in cursor.fetchall()):
            return Health(NO_WORKER)
    warnings = (*_stalled(database), *_silent(database), *_held_back(database))
    return Health(warning=" ".join(warnings))


def _stalled(database: BaseDatabaseWrapper) -> Iterator[str]:
    stalled = broker.stalled_for(database)
    if stalled >= SLOW:
        yield (
            f"Nobody evaluates: jobs have waited for a worker for {stalled:.0f} s. Look at the"
            " log of `manage.py worker`."
        )


def _silent(database: BaseDatabaseWrapper) -> Iterator[str]:
    for name, jobs, silence in broker.silent_leaseholders(SILENT_LEASE, database)[:MOST_NAMED]:
        waits = "its lease ends" if jobs == 1 else "its leases end"
        yield (
            f"The worker {':'.join(name.split(':')[:2])} has not been heard of for"
            f" {duration(silence)}: {counted(jobs, 'job')} it has taken"
            f" {'waits' if jobs == 1 else 'wait'} until {waits}, or until it is killed."
        )


def _held_back(database: BaseDatabaseWrapper) -> Iterator[str]:
    global _seen_writing  # noqa: PLW0603 - see its docstring
    writer, now = journal.oldest_writer(database), time.monotonic()
    if writer is None:
        _seen_writing = None
        return
    if _seen_writing is None or _seen_writing[0] != writer:
        _seen_writing = (writer, now)
    if (lasts := now - _seen_writing[1]) >= SLOW:
        who = f"{writer.application} " if writer.application else ""
        where = f"process {writer.process} of the database" if writer.process else "prepared"
        yield (
            f"The event feed stands still: a transaction of {who}({where})"
            f" has been writing events for {duration(lasts)}."
        )


_WORKERS = """
    SELECT host, pid FROM orchestrator_workerprocess
    WHERE seen_at > now() - make_interval(secs => %s)
"""


def _is_migrated(database: BaseDatabaseWrapper) -> bool:
    global _migrated  # noqa: PLW0603 - see its docstring
    if not _migrated:
        executor = MigrationExecutor(database)
        _migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    return _migrated


def _lives(host: str, pid: int) -> bool:
    """Whether a worker that was heard of is there: the row of one just killed looks young."""
    if host != platform.node():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # It is there, and somebody else's.
        return True
    return True


class OwnConnection:
    """Looks over a connection of its own, beside any pool, so that it waits for nobody."""

    def __init__(self) -> None:
        self._own: BaseDatabaseWrapper | None = None

    def __call__(self) -> Health:
        if self._own is not None:
            try:
                return look(self._own)
            except Error:
                self._own.close()  # Perhaps only this session has ended; a new one tells.
        self._own = _without_pool()
        try:
            return look(self._own)
        except Error:
            self.close()
            raise

    def close(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None


def _without_pool() -> BaseDatabaseWrapper:
    ours = copy.deepcopy(connections.settings["default"])
    ours["OPTIONS"].pop("pool", None)
    ours["OPTIONS"] |= {"connect_timeout": 2, "application_name": "muster health"}
    return type(connections["default"])(ours, "default")


# --- looking all the time ------------------------------------------------------------------------


class Watch:
    """Looks again and again on a thread of its own, and says at once what it saw last.

    A look that has no answer after *patience* seconds is one too: the database is silent.
    """

    def __init__(
        self, look: Callable[[], Health], *, every: float = EVERY, patience: float = PATIENCE
    ) -> None:
        self._look = look
        self._every, self._patience = every, patience
        self._seen: Health | None = None
        self._asked_at: float | None = None
        self._remembered: tuple[Trouble, float] | None = None
        self._told: Trouble | None = None
        self._first = threading.Event()
        self._starts = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        """Begin to look; once."""
        with self._starts:
            if self._thread is None:
                self._asked_at = time.monotonic()
                self._thread = threading.Thread(target=self._run, name="health", daemon=True)
                self._thread.start()

    def health(self) -> Health:
        """Say how it is; within *patience* also when nothing has been seen yet.

        Where nobody looks, nothing is known to be the matter.
        """
        if not self.is_running:
            return Health()
        self._first.wait(self._patience)
        seen = Health(SILENT) if self._is_silent() else self._seen or Health(SILENT)
        if seen.trouble is None and self._remembered is not None:
            trouble, until = self._remembered
            if time.monotonic() < until:
                return Health(trouble, seen.warning)
        return seen

    def outage(self) -> Trouble | None:
        """Say what keeps the database from answering anything, without waiting."""
        if self._is_silent():
            self._tell(SILENT)
            return SILENT
        trouble = None if self._seen is None else self._seen.trouble
        return trouble if trouble is not None and trouble.total else None

    def remember(self, trouble: Trouble) -> None:
        """Believe in *trouble*, which somebody met who wrote, for a while."""
        self._remembered = (trouble, time.monotonic() + REMEMBERED)

    def _is_silent(self) -> bool:
        asked_at = self._asked_at
        return asked_at is not None and time.monotonic() - asked_at > self._patience

    def _run(self) -> None:
        while True:
            self._asked_at = time.monotonic()
            self._seen = seen = self._ask()
            self._asked_at = None
            self._first.set()
            self._tell(seen.trouble)
            time.sleep(self._every)

    def _tell(self, trouble: Trouble | None) -> None:
        """Log what is the matter, once for as long as it is."""
        if trouble != self._told:
            self._told = trouble
            logger.warning("%s", trouble.sentence if trouble else "The cluster takes jobs.")

    def _ask(self) -> Health:
        try:
            return _with_disk(self._look())
        except Exception as error:  # The watch goes on, whatever a look brings.
            trouble = classify(error)
            if trouble is None and not isinstance(error, Error):
                logger.exception("the state of the cluster cannot be read")
            return _with_disk(Health(trouble or UNKNOWN))


def _with_disk(health: Health) -> Health:
    """Name the full disk of our own database, which a server that ended cannot do itself."""
    if settings.DATABASE_DISK is None:
        return health
    trouble = health.trouble
    try:
        free = shutil.disk_usage(settings.DATABASE_DISK).free
    except OSError:
        return health
    if trouble is not None and trouble.total and free < settings.DATABASE_ROOM:
        return replace(health, trouble=replace(FULL, total=True))
    return replace(health, trouble=FULL) if trouble is None and free < ROOM else health


watch = Watch(OwnConnection())
"""The one of this process."""
