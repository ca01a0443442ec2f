"""The ledger keeps what it was told, over any death of its process."""

from __future__ import annotations

import sqlite3

import pytest

from nodes.agent.ledger import TOMBSTONE_AGE, TOMBSTONES, Ledger, LedgerUnusable
from nodes.agent.outbox import Outbox
from nodes.agent.records import Changes, Entry, Stage
from nodes.protocol.messages import Happened, Report, Task
from nodes.protocol.resources import Resources

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
