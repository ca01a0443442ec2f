"""Hints: sent after commit, few of them, heard by threads and by event loops."""

import asyncio
import gc
import multiprocessing
import time

import psycopg
import pytest
from django.db import connection, transaction

from nodes import hints
from nodes.hints import Hint, Listener, after_commit, subscribe

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def listener():
    hints.flush(5)  # What was said before this test is not of it.
    it = Listener([Hint.WORK, Hint.VIEW])
    assert it.wait(5) == {Hint.WORK, Hint.VIEW}, "everything may have changed"
    yield it
    it.close()


def test_a_hint_is_heard_after_the_commit_and_not_before(listener):
    with transaction.atomic():
        after_commit(Hint.WORK)
        hints.flush()
        assert listener.wait(0.1) == set()
    assert listener.wait(5) == {Hint.WORK}


def test_a_hint_of_a_transaction_that_is_undone_is_never_said(listener):
    with transaction.atomic():
        after_commit(Hint.WORK)
        transaction.set_rollback(True)
    hints.flush()
    assert listener.wait(0.1) == set()


def test_without_a_transaction_it_is_said_at_once(listener):
    after_commit(Hint.VIEW)
    assert listener.wait(5) == {Hint.VIEW}


def test_one_transaction_says_a_hint_once():
    with transaction.atomic():
        for _ in range(5):
            after_commit(Hint.WORK)
        after_commit(Hint.VIEW)
        assert len(connection.run_on_commit) == 2


def test_a_hint_of_an_undone_savepoint_does_not_silence_the_next(listener):
    with transaction.atomic():
        with transaction.atomic():
            after_commit(Hint.WORK)
            transaction.set_rollback(True)
        after_commit(Hint.WORK)
    assert listener.wait(5) == {Hint.WORK}


def test_a_storm_of_changes_is_a_trickle_of_hints(listener):
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        after_commit(Hint.WORK)
    hints.flush()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    heard = 0
    while listener.wait(0.2):
        heard += 1
    assert 1 <= heard <= 12


def test_a_listener_that_was_cut_off_comes_back_and_says_so(listener, caplog, eventually):
    _cut_off("LISTEN%")
    assert eventually(lambda: listener.wait(5)) == {Hint.WORK, Hint.VIEW}
    assert "cannot hear hints" in caplog.text


def test_a_notifier_that_was_cut_off_loses_no_hint(listener):
    after_commit(Hint.WORK)
    assert listener.wait(5) == {Hint.WORK}
    _cut_off("NOTIFY%")
    after_commit(Hint.WORK)
    assert listener.wait(5) == {Hint.WORK}


def test_whatever_happens_to_a_notifier_the_next_hint_is_sent(listener, caplog):
    def connect():
        if not caplog.records:
            raise ValueError("no address")
        return psycopg.connect(**hints.address(), autocommit=True)

    notifier = hints._Notifier(connect)
    notifier.tell(Hint.WORK)
    notifier.flush(5)
    assert "a hint is lost (muster_work): no address" in caplog.text
    notifier.tell(Hint.WORK)
    assert listener.wait(5) == {Hint.WORK}
    notifier.close()


def test_a_forked_process_says_its_own_hints(listener):
    after_commit(Hint.WORK)
    assert listener.wait(5) == {Hint.WORK}

    def child():
        connection.connect()
        after_commit(Hint.VIEW)
        hints.flush(5)

    connection.close()
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(20)
    assert process.exitcode == 0
    assert listener.wait(5) == {Hint.VIEW}
    after_commit(Hint.WORK)
    assert listener.wait(5) == {Hint.WORK}, "its parent's connection is as it was"


def _cut_off(last_statement):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE query LIKE %s AND datname = current_database()",
            [last_statement],
        )
        assert cursor.fetchone()[0] >= 1


class TestInAnEventLoop:
    async def test_subscribers_are_called_and_can_leave(self):
        work, view = Calls(), Calls()
        leave = subscribe(Hint.WORK, work)
        subscribe(Hint.VIEW, view)
        await work.reach(1)
        await view.reach(1)
        await asyncio.to_thread(_say, Hint.WORK)
        await work.reach(2)
        assert view.n == 1
        leave()
        await asyncio.to_thread(_say, Hint.WORK)
        await asyncio.to_thread(_say, Hint.VIEW)
        await view.reach(2)
        assert work.n == 2

    async def test_one_that_fails_does_not_silence_the_others(self, caplog):
        def fails():
            raise ValueError("mine")

        calls = Calls()
        subscribe(Hint.WORK, fails)
        subscribe(Hint.WORK, calls)
        await calls.reach(1)
        assert "a subscriber to muster_work failed" in caplog.text

    async def test_after_a_cut_everything_may_have_changed(self):
        calls = Calls()
        subscribe(Hint.ORDERS, calls)
        await calls.reach(1)
        await asyncio.to_thread(_in_thread, lambda: _cut_off("LISTEN%"))
        await calls.reach(2)


class Calls:
    def __init__(self):
        self.n = 0
        self._changed = asyncio.Event()

    def __call__(self):
        self.n += 1
        self._changed.set()

    async def reach(self, n):
        async with asyncio.timeout(10):
            while self.n < n:
                self._changed.clear()
                await self._changed.wait()


def _say(hint):
    _in_thread(lambda: after_commit(hint))


def _in_thread(what):
    try:
        what()
    finally:
        connection.close()


def test_of_an_event_loop_that_ends_while_it_connects_nothing_is_kept():
    async def hear():
        subscribe(Hint.VIEW, lambda: None)
        await asyncio.sleep(0)  # It has begun, and goes on no further.

    gc.collect()
    before = len(hints._hubs)
    asyncio.run(hear())
    gc.collect()
    assert len(hints._hubs) == before
