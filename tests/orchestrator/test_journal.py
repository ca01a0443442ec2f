"""The journal loses no row, whatever order transactions commit in."""

import base64
import threading
from contextlib import suppress

import pytest
from django.db import connection, connections, transaction

from orchestrator.explain.errors import Conflict
from orchestrator.models import ClusterSetting, Event, journal
from tests.sessions import open_transaction

pytestmark = pytest.mark.django_db(transaction=True)


def write(*names):
    journal.record(journal.fact("job", name, name) for name in names)


def read(cursor=None, limit=100):
    page = journal.after(cursor, limit)
    return [event.what for event in page.events], page.cursor


def test_pages_follow_each_other_without_overlap():
    write("a", "b", "c")
    first, cursor = read(limit=2)
    rest, cursor = read(cursor)
    assert (first, rest) == (["a", "b"], ["c"])
    assert read(cursor)[0] == []
    write("d")
    assert read(cursor)[0] == ["d"]


def insert():
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orchestrator_event (topic, what, actor, message, data)"
            " VALUES ('job', 'slow', '', '', '{}')"
        )


@pytest.mark.parametrize("slow", [lambda: write("slow"), insert], ids=["record", "psql"])
def test_a_row_that_commits_late_is_seen_by_a_reader_that_passed_its_id(slow):
    with open_transaction(slow):
        write("quick")  # A higher id, committed first.
        seen, cursor = read()
        assert seen == []
    assert read(cursor)[0] == ["slow", "quick"]


def test_a_transaction_holds_readers_at_the_first_that_it_wrote_and_keeps():
    """What it rolled back to a savepoint is given up, and holds nobody."""

    def often():
        with suppress(ZeroDivisionError), transaction.atomic():
            write("never")
            raise ZeroDivisionError
        for number in range(5):
            write(f"slow-{number}")

    with open_transaction(often):
        write("quick")
        seen, at = read()
        assert seen == []
    assert read(at)[0] == [*(f"slow-{number}" for number in range(5)), "quick"]


def test_a_transaction_that_writes_no_event_holds_nothing_back():
    """As pg_dump, or a psql that somebody forgot, in this database or another."""

    def stranger():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()")

    with open_transaction(stranger):
        write("a")
        seen, cursor = read()
        write("b")
        assert (seen, read(cursor)[0]) == (["a"], ["b"])
        assert journal.oldest_writer() is None


def test_who_holds_the_feed_back_is_named():
    before = journal.latest()
    with open_transaction(lambda: write("a")):
        writer = journal.oldest_writer()
        assert (bool(writer.application), writer) == (True, journal.oldest_writer())
        assert journal.latest() == before
    assert journal.oldest_writer() is None


@pytest.mark.parametrize("read_by_then", [0, 1, 2, 3])
def test_a_cursor_of_an_earlier_release_loses_nothing(read_by_then):
    """Its readers followed transactions, of which a later one may have smaller ids."""
    write("a", "b", "c", "d")
    rows = list(Event.objects.order_by("pk"))
    xids = [9, 7, 8, 10]  # In the order of that release: b, c, a, d.
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE orchestrator_event DISABLE TRIGGER USER")
        for row, xid in zip(rows, xids, strict=True):
            cursor.execute(
                "UPDATE orchestrator_event SET xid = %s::text::xid8 WHERE id = %s", [xid, row.pk]
            )
        cursor.execute("ALTER TABLE orchestrator_event ENABLE TRIGGER USER")
    order = [rows[1], rows[2], rows[0], rows[3]]
    epoch = ClusterSetting.objects.get().epoch
    at = (xids[rows.index(order[read_by_then])], 0)  # As "now" was said.
    old = base64.urlsafe_b64encode(f"{epoch}:{at[0]}:{at[1]}".encode()).decode()
    unread = {row.what for row in order[read_by_then:]}
    assert unread <= set(read(old)[0])


def test_many_writers_and_one_reader_miss_nothing():
    written = 8 * 40

    def writer(name):
        for number in range(40):
            with transaction.atomic():
                write(f"{name}-{number}")
                if number % 5 == 0:
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT pg_sleep(0.004)")
        connections.close_all()

    threads = [threading.Thread(target=writer, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    seen, cursor = [], None
    while any(thread.is_alive() for thread in threads) or len(seen) < Event.objects.count():
        more, cursor = read(cursor, limit=50)
        seen += more
    assert len(seen) == len(set(seen)) == written


@pytest.mark.parametrize("cursor", ["nonsense", "YTpiOmM", "", "x" * 5000])
def test_a_cursor_that_is_none_of_ours_is_refused_with_a_sentence(cursor):
    if not cursor:
        assert read(cursor)[0] == []
        return
    with pytest.raises(Conflict, match="not a cursor of this feed"):
        journal.after(cursor)


def test_a_cursor_of_an_earlier_life_is_refused():
    write("a")
    _, cursor = read()
    ClusterSetting.objects.update(epoch="00000000-0000-0000-0000-000000000001")
    with pytest.raises(Conflict, match="an earlier life"):
        journal.after(cursor)


def test_the_latest_cursor_shows_only_what_comes_after_it():
    write("before")
    cursor = journal.latest()
    write("after")
    assert read(cursor)[0] == ["after"]


def test_who_writes_as_another_role_is_known_to_write():
    """As an operator's command does: web processes do not see since when its session is busy."""
    with open_transaction(lambda: write("a")), transaction.atomic():
        seen = journal.oldest_writer()
        with connection.cursor() as cursor:
            cursor.execute("CREATE ROLE ordinary")
            cursor.execute("SET LOCAL ROLE ordinary")
        assert journal.oldest_writer() == seen
        transaction.set_rollback(True)


def test_no_setting_of_a_session_makes_an_event_one_that_readers_miss():
    """Any session may make it, as it may the one by which triggers are ignored."""

    def slow():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('muster.announced', pg_current_xact_id()::text, true)"
            )
        write("slow")

    with open_transaction(slow):
        write("quick")
        seen, cursor = read()
    assert [*seen, *read(cursor)[0]] == ["slow", "quick"]
