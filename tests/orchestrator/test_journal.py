"""The journal loses no row, whatever order transactions commit in."""

import threading

import pytest
from django.db import connection, connections, transaction

from orchestrator.explain.errors import Conflict
from orchestrator.models import ClusterSetting, Event, journal

pytestmark = pytest.mark.django_db(transaction=True)


def write(*names):
    journal.record(journal.fact("job", name, name) for name in names)


def read(cursor=None, limit=100):
    page = journal.after(cursor, limit)
    return [event.what for event in page.events], page.cursor


@pytest.fixture
def read_until(eventually):
    """Read on until *count* rows were seen: any transaction of the server may hold them back."""

    def wait(count, cursor=None, limit=100):
        seen = []

        def enough():
            nonlocal cursor
            more, cursor = read(cursor, limit)
            seen.extend(more)
            return len(seen) >= count

        eventually(enough, say=f"{count} rows, saw {seen}")
        return seen, cursor

    return wait


def test_pages_follow_each_other_without_overlap(read_until):
    write("a", "b", "c")
    first, cursor = read_until(2, limit=2)
    rest, cursor = read_until(1, cursor)
    assert (first, rest) == (["a", "b"], ["c"])
    assert read(cursor)[0] == []
    write("d")
    assert read_until(1, cursor)[0] == ["d"]


def test_a_row_that_commits_late_is_seen_by_a_reader_that_passed_its_id(read_until):
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def slow():
        with transaction.atomic():
            write("slow")
            begun.set()
            go_on.wait(20)
        connections.close_all()
        done.set()

    thread = threading.Thread(target=slow)
    thread.start()
    begun.wait(20)
    write("quick")  # A higher id, committed first.
    seen, cursor = read()
    go_on.set()
    done.wait(20)
    thread.join()
    later, _ = read_until(2 - len(seen), cursor)
    assert sorted(seen + later) == ["quick", "slow"]


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


def test_a_cursor_of_an_earlier_life_is_refused(read_until):
    write("a")
    _, cursor = read_until(1)
    ClusterSetting.objects.update(epoch="00000000-0000-0000-0000-000000000001")
    with pytest.raises(Conflict, match="an earlier life"):
        journal.after(cursor)


def test_the_latest_cursor_shows_only_what_comes_after_it(read_until):
    write("before")
    read_until(1)
    cursor = journal.latest()
    write("after")
    assert read_until(1, cursor)[0] == ["after"]
