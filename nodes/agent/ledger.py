"""The ledger: what the agent must know after a crash, in SQLite.

Every commit is on disk before it returns (WAL, ``synchronous=FULL``): what the agent has
acknowledged or is about to start survives even the loss of power.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..protocol.messages import Report
from .records import Changes, Entry, Saved

#: The shape of the tables; a ledger of another shape is refused rather than misread.
SHAPE = 1
#: Executions that are over are remembered this long, and this many of them at most.  It is the
#: agent's own time, which passes while one runs: whoever sets the clock makes nobody forget.
TOMBSTONE_AGE = 14 * 86400.0
TOMBSTONES = 200_000

#: So many are forgotten at once for their age, at most.
_AT_ONCE = 10_000

#: Room that the ledger takes before it needs it: pages of 4 KiB in it, bytes of its log, which is
#: begun anew when it has a thousand pages.
_PAGES, _LOG = 512, 6 << 20
#: With less on the disk any error of writing is one of room.
_LITTLE = 1 << 20

_TABLES = """
DROP TABLE IF EXISTS room;
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS execution (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS report (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS tombstone (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at REAL NOT NULL, final BLOB NOT NULL
);
"""

#: What is only in memory, as secrets are, is written as nothing.
_encode = msgspec.msgpack.Encoder(enc_hook=lambda _: None).encode
_entry = msgspec.msgpack.Decoder(Entry, dec_hook=lambda _, it: it).decode
_report = msgspec.msgpack.Decoder(Report).decode
_final: msgspec.msgpack.Decoder[Report | None] = msgspec.msgpack.Decoder(Report | None)


class LedgerUnusable(Exception):
    """The ledger of this state directory cannot be used: {detail}."""


class NoRoom(Exception):
    """The disk is full: what should be kept cannot be."""


def executions(path: Path) -> frozenset[str]:
    """The executions that the ledger at *path* knows and that are not over and acknowledged.

    Reading them takes no room on the disk.  Raises LedgerUnusable.
    """
    if not path.exists():
        return frozenset()
    with _in_words(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")  # Else the log's index would be a file.
        if not _has_our_shape(db, path):
            return frozenset()
        return frozenset(name for (name,) in db.execute("SELECT id FROM execution"))


def _has_our_shape(db: sqlite3.Connection, path: Path) -> bool:
    """Whether there are tables of ours yet; raises LedgerUnusable when another version made them.

    Nothing is written or removed before that is known.
    """
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'fact'").fetchone():
        return False
    row = db.execute("SELECT value FROM fact WHERE name = 'shape'").fetchone()
    if row is not None and row[0] != SHAPE:
        raise LedgerUnusable(
            f"{path} has shape {row[0]}, this agent reads shape {SHAPE}: "
            "start the version of the agent that wrote it"
        )
    return row is not None


class Ledger:
    """One state directory's ledger.  Opening it counts a run of the agent.

    ``now`` is always of the same clock, one that is never set.  It *is older* when less is in it
    than was once committed here: it was lost, or a copy was put in its place.
    """

    def __init__(self, path: Path, now: float) -> None:
        self._path, self._note = path, -1
        noted, noted_run = _noted(path)
        with _in_words(path):
            self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._open(noted_run)
        except BaseException:
            self._db.close()
            raise
        self.id = str(self._get("id", ""))
        self.run = int(self._get("run", 0))
        self._lived_before, self._opened_at = float(self._get("lived", 0.0)), now
        commits = int(self._get("commits", 0))
        self.is_older = commits < noted
        # It stays older until what was made of that is committed.
        self._commits = max(commits, noted)
        self._take_note()

    def _open(self, noted_run: int) -> None:
        with _in_words(self._path):
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            _has_our_shape(self._db, self._path)
            self._db.executescript(_TABLES)
            with self._transaction():
                self._remember("shape", SHAPE)
                self._remember("id", str(uuid.uuid4()))
                self._set("run", max(int(self._get("run", 0)), noted_run) + 1)
                if self._get("lived", "") == "":  # Ages were once told by the wall clock.
                    self._db.execute("UPDATE tombstone SET at = 0")

    def saved(self) -> Saved:
        """Everything the core starts from."""
        with _in_words(self._path):
            bodies = self._db.execute("SELECT body FROM execution")
            reports = self._db.execute("SELECT number, body FROM report ORDER BY number")
            return Saved(
                order_rev=int(self._get("order_rev", 0)),
                boot=str(self._get("boot", "")),
                entries=tuple(_entry(body) for (body,) in bodies),
                reports=tuple((number, _report(body)) for number, body in reports),
                numbered=int(self._get("numbered", 0)),
            )

    def recall(self, execution: str) -> tuple[bool, Report | None]:
        """Whether *execution* was here and is over, and its final report if it had one."""
        with _in_words(self._path):
            found = self._db.execute("SELECT final FROM tombstone WHERE id = ?", (execution,))
            row = found.fetchone()
            return (False, None) if row is None else (True, _final.decode(row[0]))

    def commit(self, changes: Changes, now: float) -> None:
        """Write *changes*, all or nothing; durable on return.  Raises NoRoom on a full disk."""
        put = [(name, _encode(entry)) for name, entry in changes.entries.items() if entry]
        drop = [(name,) for name, entry in changes.entries.items() if entry is None]
        new = [(n, _encode(report)) for n, report in changes.reports if n > changes.acked]
        at = self._lived(now)
        graves = [(name, at, _encode(final)) for name, final in changes.tombstones.items()]
        with _in_words(self._path), self._transaction():
            if put:
                self._db.executemany("INSERT OR REPLACE INTO execution VALUES (?, ?)", put)
            if drop:
                self._db.executemany("DELETE FROM execution WHERE id = ?", drop)
            if changes.acked:
                self._db.execute("DELETE FROM report WHERE number <= ?", (changes.acked,))
            if new:
                self._db.executemany("INSERT INTO report VALUES (?, ?)", new)
            if changes.reports:
                self._set("numbered", changes.reports[-1][0])
            if graves:
                self._db.executemany(
                    "INSERT OR REPLACE INTO tombstone (id, at, final) VALUES (?, ?, ?)", graves
                )
            if changes.order_rev is not None:
                self._set("order_rev", changes.order_rev)
            if changes.boot is not None:
                self._set("boot", changes.boot)
            self._set("commits", self._commits + 1)
        self._commits += 1
        self._take_note()

    def prune(self, now: float) -> None:
        """Forget executions that have been over for so long that nobody will ask again."""
        lived = self._lived(now)
        with _in_words(self._path), self._transaction():
            self._set("lived", lived)
            # Their ages rise with their numbers: the first ones are enough to look at.
            self._db.execute(
                "DELETE FROM tombstone WHERE at < ? AND number IN"
                " (SELECT number FROM tombstone ORDER BY number LIMIT ?)",
                (lived - TOMBSTONE_AGE, _AT_ONCE),
            )
            self._db.execute(
                "DELETE FROM tombstone"
                " WHERE number <= (SELECT coalesce(max(number), 0) FROM tombstone) - ?",
                (TOMBSTONES,),
            )

    def take_room(self) -> None:
        """Own the room on the disk that commits will need, so that no task can take it.

        Pages that are free within the file are written before it grows, and the write-ahead log
        before its end.  Raises NoRoom.
        """
        with _in_words(self._path):
            (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
            if free < _PAGES // 2:
                with self._transaction():
                    # Written, as a file that merely grows has holes.
                    self._db.execute("CREATE TABLE room AS SELECT zeroblob(?)", (_PAGES * 4096,))
                self._db.execute("PRAGMA wal_checkpoint").fetchone()
                with self._transaction():
                    self._db.execute("DROP TABLE room")
        try:
            # SQLite locks other files of its than this one, so it may be opened and closed here.
            log = os.open(f"{self._path}-wal", os.O_WRONLY)
            try:
                os.posix_fallocate(log, 0, _LOG)
            finally:
                os.close(log)
        except OSError as error:
            raise NoRoom(f"{self._path}-wal: {error.strerror}") from error

    def close(self) -> None:
        self._db.close()
        if self._note >= 0:
            os.close(self._note)
            self._note = -1

    def _lived(self, now: float) -> float:
        """How many seconds agents have run on this ledger, all runs together."""
        return self._lived_before + now - self._opened_at

    def _take_note(self) -> None:
        """Note beside the ledger what is committed: one write, which our death does not undo.

        It is never synced: one that was lost says less than is true, and does no harm.
        """
        with contextlib.suppress(OSError):
            if self._note < 0:
                self._note = os.open(_note_of(self._path), os.O_WRONLY | os.O_CREAT, 0o600)
            os.pwrite(self._note, b"%020d %020d\n" % (self._commits, self.run), 0)

    def _get(self, name: str, default: int | str | float) -> int | str | float:
        row = self._db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return default if row is None else row[0]

    def _set(self, name: str, value: int | str | float) -> None:
        self._db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))

    def _remember(self, name: str, value: int | str) -> None:
        self._db.execute("INSERT OR IGNORE INTO fact VALUES (?, ?)", (name, value))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """BEGIN IMMEDIATE … COMMIT, or ROLLBACK when something was raised."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:  # A full disk has ended it already.
                self._db.execute("ROLLBACK")


def _note_of(path: Path) -> Path:
    return path.with_suffix(".commits")


def _noted(path: Path) -> tuple[int, int]:
    """How many commits and runs there were in all, whatever lies at *path* now."""
    with contextlib.suppress(OSError, ValueError):
        commits, run = map(int, _note_of(path).read_bytes().split())
        return commits, run
    return 0, 0


@contextlib.contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Raise what SQLite says of the file at *path* as NoRoom, or LedgerUnusable with the cure."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
        name = str(getattr(error, "sqlite_errorname", None) or "SQLITE_CORRUPT")
        is_full = shutil.disk_usage(path.parent).free < _LITTLE
        if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and is_full):
            raise NoRoom(f"{path}: there is no room left on the disk") from error
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise LedgerUnusable(
                f"{path}: {error}: it is damaged; move it away, with {path.name}-wal and "
                f"{path.name}-shm, and start again: what runs here is then stopped, and what was "
                "not reported yet counts as lost"
            ) from error
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise LedgerUnusable(
                f"{path}: another program has it open and lets nobody write: end that one"
            ) from error
        raise LedgerUnusable(
            f"{path}: {error}: see that the disk works and that the agent's user may write there"
        ) from error
