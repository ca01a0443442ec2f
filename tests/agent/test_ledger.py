"""The ledger keeps what it was told, over any death of its process."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3

import pytest

from nodes.agent.ledger import (
    TOMBSTONE_AGE,
    TOMBSTONES,
    Ledger,
    LedgerUnusable,
    NoRoom,
    executions,
)
from nodes.agent.outbox import Outbox
from nodes.agent.records import Changes, Entry, Stage
from nodes.protocol.messages import Happened, Report, Task
from nodes.protocol.resources import Resources
from tests.agent.disks import fill, small_disk

ENTRY = Entry(
    "e", Stage.RUNNING, Task("process", ("true",), env={"A": "b"}), Resources(1, 2, 3, 4), 5.0
)
FINAL = Report("e", Happened.FAIL, exit_code=3, code="exit-code", stdout="héllo")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


def reopened(ledger, path, now=0.0):
    ledger.close()
    return Ledger(path, now)


def test_what_was_committed_is_there_after_a_restart(path):
    ledger = Ledger(path, now=0.0)
    ledger.commit(Changes(7, {"e": ENTRY}, {"old": FINAL}, [(1, FINAL)]), now=0.0)
    name, ledger = ledger.id, reopened(ledger, path)
    saved = ledger.saved()
    assert (saved.order_rev, saved.entries, saved.reports) == (7, (ENTRY,), ((1, FINAL),))
    assert ledger.recall("old") == (True, FINAL)
    assert ledger.recall("new") == (False, None)
    assert (ledger.id, ledger.run) == (name, 2)
    ledger.close()


def test_a_ledger_that_another_program_holds_says_so(path):
    Ledger(path, now=0.0).close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnusable, match="another program has it open"):
            Ledger(path, now=0.0)


def test_to_forget_costs_the_same_however_much_is_remembered(path):
    ledger = Ledger(path, now=0.0)
    ledger.commit(Changes(tombstones={str(n): FINAL for n in range(30_000)}), now=0.0)
    steps = []
    ledger._db.set_progress_handler(lambda: steps.append(1), 1000)
    ledger.prune(now=1.0)
    assert len(steps) < 200
    ledger.close()


def test_the_boot_is_saved_with_what_came_of_it_or_not_at_all(path):
    ledger = Ledger(path, now=0.0)
    assert ledger.saved().boot == ""
    ledger.commit(Changes(boot="first", reports=[(1, FINAL)]), now=0.0)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.commit(Changes(boot="second", reports=[(1, FINAL)]), now=0.0)
    ledger = reopened(ledger, path)
    assert ledger.saved().boot == "first"
    ledger.close()


def test_acknowledged_reports_and_forgotten_executions_go(path):
    ledger = Ledger(path, now=0.0)
    ledger.commit(Changes(entries={"e": ENTRY}, reports=[(1, FINAL), (2, FINAL)]), now=0.0)
    gone = Changes(entries={"e": None}, tombstones={"e": None}, reports=[(3, FINAL)], acked=2)
    ledger.commit(gone, now=0.0)
    saved = ledger.saved()
    assert (saved.entries, [number for number, _ in saved.reports]) == ((), [3])
    assert ledger.recall("e") == (True, None)
    ledger.close()


def test_a_report_acknowledged_before_it_was_saved_is_not_kept(path):
    ledger = Ledger(path, now=0.0)
    ledger.commit(Changes(reports=[(1, FINAL), (2, FINAL)], acked=1), now=0.0)
    assert [number for number, _ in ledger.saved().reports] == [2]
    ledger.close()


def test_a_commit_that_fails_changes_nothing(path):
    ledger = Ledger(path, now=0.0)
    ledger.commit(Changes(reports=[(1, FINAL)]), now=0.0)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.commit(Changes(5, {"e": ENTRY}, reports=[(1, FINAL)]), now=0.0)
    saved = ledger.saved()
    assert (saved.order_rev, saved.entries) == (0, ())
    ledger.close()


def test_tombstones_go_when_they_are_very_old_or_very_many(path):
    ledger = Ledger(path, now=0.0)
    ledger.commit(Changes(tombstones={"old": None}), now=0.0)
    ledger.commit(Changes(tombstones={"young": None}), now=TOMBSTONE_AGE)
    ledger.prune(now=TOMBSTONE_AGE + 1)
    assert [ledger.recall(name)[0] for name in ("old", "young")] == [False, True]
    many = {f"e{number}": None for number in range(TOMBSTONES)}
    ledger.commit(Changes(tombstones=many), now=TOMBSTONE_AGE)
    ledger.prune(now=TOMBSTONE_AGE + 1)
    assert [ledger.recall(name)[0] for name in ("young", "e0")] == [False, True]
    ledger.close()


def test_a_tombstone_is_as_old_as_agents_have_run_since(path):
    ledger = Ledger(path, now=1e9)
    ledger.commit(Changes(tombstones={"e": None}), now=1e9)
    ledger.prune(now=1e9 + TOMBSTONE_AGE / 2)
    # The next agent's clock began elsewhere: the machine was restarted.
    ledger = reopened(ledger, path, now=5.0)
    ledger.prune(now=5.0 + TOMBSTONE_AGE / 2)
    assert ledger.recall("e") == (True, None)
    ledger.prune(now=6.0 + TOMBSTONE_AGE / 2)
    assert ledger.recall("e") == (False, None)
    ledger.close()


def test_tombstones_of_a_release_that_told_ages_by_the_wall_clock_go_too(path):
    ledger = Ledger(path, now=0.0)
    ledger.commit(Changes(tombstones={"e": None}), now=1.8e9)
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM fact WHERE name = 'lived'")
    ledger = reopened(ledger, path)
    assert ledger.recall("e") == (True, None)
    ledger.prune(now=TOMBSTONE_AGE + 1)
    assert ledger.recall("e") == (False, None)
    ledger.close()


@pytest.mark.parametrize("is_of_this_run", [False, True])
def test_an_older_copy_is_told_from_the_ledger_until_what_came_of_it_is_saved(path, is_of_this_run):
    copy, ledger = path.with_name("copy"), Ledger(path, now=0.0)
    ledger.commit(Changes(order_rev=1, boot="b"), now=0.0)
    if not is_of_this_run:
        ledger = reopened(reopened(ledger, path), path)
    with contextlib.closing(sqlite3.connect(copy)) as db:
        ledger._db.backup(db)
    ledger.commit(Changes(order_rev=2), now=0.0)
    assert not ledger.is_older
    last, ledger = ledger.run, reopened(ledger, path)
    assert not ledger.is_older
    ledger.close()
    shutil.copy(copy, path)
    for run in (last + 2, last + 3):
        ledger = Ledger(path, now=0.0)
        assert (ledger.is_older, ledger.run) == (True, run)
        assert ledger.saved().order_rev == 1
        ledger.close()
    ledger = Ledger(path, now=0.0)
    ledger.commit(Changes(order_rev=3), now=0.0)
    ledger = reopened(ledger, path)
    assert not ledger.is_older
    ledger.close()


def test_a_ledger_that_was_lost_is_told_from_a_new_one(path):
    ledger = Ledger(path, now=0.0)
    assert not ledger.is_older
    ledger.commit(Changes(order_rev=1), now=0.0)
    ledger.close()
    path.unlink()
    ledger = Ledger(path, now=0.0)
    assert ledger.is_older
    ledger.close()
    for damaged in (b"", b"x", b"1 2 3"):
        path.with_suffix(".commits").write_bytes(damaged)
        path.unlink()
        Ledger(path, now=0.0).close()


def test_the_number_of_a_report_never_comes_again(path):
    ledger = Ledger(path, now=0.0)
    ledger.commit(Changes(reports=[(1, FINAL), (2, FINAL)]), now=0.0)
    ledger.commit(Changes(acked=2), now=0.0)
    ledger = reopened(ledger, path)
    saved = ledger.saved()
    assert saved.reports == ()
    assert Outbox(saved.reports, saved.numbered).add(FINAL) == 3
    ledger.close()


def test_a_file_that_is_no_ledger_is_refused_with_its_name(path):
    path.write_text("this is not a database, but it is long enough to be looked at" * 20)
    with pytest.raises(LedgerUnusable, match=r"ledger\.db: file is not a database"):
        Ledger(path, now=0.0)


def damaged(path, by):
    """A ledger of some size, closed and then damaged."""
    ledger = Ledger(path, now=0.0)
    ledger.commit(Changes(entries={f"e{n}": ENTRY for n in range(500)}), now=0.0)
    ledger.close()
    by(path)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: os.truncate(path, path.stat().st_size // 2 & ~4095),
        lambda path: os.truncate(path, 1000),
        lambda path: overwrite(path, 5 * 4096, b"\xff" * 4096),
        lambda path: overwrite(path, 0, b"SQLite"),
    ],
    ids=["half", "header", "page", "garbage"],
)
def test_a_damaged_ledger_is_refused_with_the_cure(path, harm):
    damaged(path, harm)
    with pytest.raises(LedgerUnusable, match=r"is damaged; move it away, with ledger\.db-wal"):
        Ledger(path, now=0.0)


def overwrite(path, at, data):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data if at else b"garbage" * 20)


def test_a_body_that_is_damaged_is_refused_with_the_cure(path):
    ledger = Ledger(path, now=0.0)
    ledger.commit(Changes(entries={"e": ENTRY}, tombstones={"old": FINAL}), now=0.0)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE execution SET body = x'00'")
        db.execute("UPDATE tombstone SET final = x'00'")
    for ask in (ledger.saved, lambda: ledger.recall("old")):
        with pytest.raises(LedgerUnusable, match="is damaged; move it away"):
            ask()
    ledger.close()


def test_on_a_full_disk_the_ledger_is_read_and_a_commit_is_refused_whole(tmp_path):
    with small_disk(tmp_path / "disk", megabytes=2) as disk:
        path = disk / "ledger.db"
        ledger = Ledger(path, now=0.0)
        ledger.commit(Changes(1, {"e": ENTRY}), now=0.0)
        filler = fill(disk)
        large = Changes(2, {f"e{n}": ENTRY for n in range(10_000)})
        with pytest.raises(NoRoom, match=r"ledger\.db: there is no room left on the disk"):
            ledger.commit(large, now=0.0)
        assert ledger.saved().entries == (ENTRY,)
        ledger.close()
        assert executions(path) == {"e"}
        with pytest.raises(NoRoom):
            Ledger(path, now=0.0)
        filler.unlink()
        ledger = Ledger(path, now=0.0)
        ledger.commit(Changes(3), now=0.0)
        assert (ledger.saved().order_rev, ledger.run) == (3, 2)
        ledger.close()


def test_what_a_ledger_knows_is_read_without_opening_it(path):
    assert executions(path) == frozenset()
    path.touch()
    assert executions(path) == frozenset()
    ledger = Ledger(path, now=0.0)
    ledger.commit(Changes(entries={"e": ENTRY, "f": ENTRY}), now=0.0)
    ledger.commit(Changes(entries={"f": None}), now=0.0)
    ledger.close()
    assert executions(path) == {"e"}
    damaged(path, lambda path: os.truncate(path, 1000))
    with pytest.raises(LedgerUnusable, match="is damaged"):
        executions(path)


def test_a_ledger_of_another_version_is_refused_as_it_was(path):
    Ledger(path, now=0.0).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE fact SET value = 2 WHERE name = 'shape'")
        db.execute("DELETE FROM fact WHERE name = 'lived'")
        db.execute("ALTER TABLE tombstone RENAME COLUMN at TO ended")
        db.execute("CREATE TABLE room (of INTEGER)")
        before = list(db.iterdump())
    with pytest.raises(LedgerUnusable, match="has shape 2, this agent reads shape 1: start the"):
        Ledger(path, now=0.0)
    with sqlite3.connect(path) as db:
        assert list(db.iterdump()) == before
