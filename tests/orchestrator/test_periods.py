"""The weeks of the journal: made ahead, filled whatever happens, dropped whole."""

import json
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.utils import timezone

from orchestrator.models import Event, Namespace, journal, periods
from tests.sessions import open_transaction

pytestmark = pytest.mark.django_db(transaction=True)

WEEK = timedelta(days=7)
NOW = timezone.now()


@pytest.fixture(autouse=True)
def _weeks_as_made():
    """The weeks are as the migration makes them, before each test and afterwards."""
    make_weeks()
    yield
    make_weeks()


def make_weeks():
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM orchestrator_event_weeks()")
        for (name,) in cursor.fetchall():
            cursor.execute(f"DROP TABLE {name}")
    periods.open_weeks()


def write(what, ago=timedelta(0)):
    Event.objects.create(topic="job", what=what, at=timezone.now() - ago)


def where():
    """In which partition each event lies."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT what, tableoid::regclass::text FROM orchestrator_event ORDER BY id")
        return dict(cursor.fetchall())


def name(at):
    return f"orchestrator_event_{at:%Gw%V}"


def weeks():
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM orchestrator_event_weeks() ORDER BY ends")
        return [found for (found,) in cursor.fetchall()]


def test_there_are_partitions_for_this_week_and_the_next_ones():
    assert weeks() == [name(NOW + number * WEEK) for number in range(periods.AHEAD + 1)]
    write("now")
    assert where() == {"now": name(NOW)}
    assert periods.open_weeks() == []


def test_an_event_without_a_partition_waits_in_the_default_one_until_there_is_one():
    write("now")
    write("old", 30 * WEEK)
    write("coming", -9 * WEEK)
    assert where()["old"] == where()["coming"] == "orchestrator_event_default"
    new = {"old": name(NOW - 30 * WEEK), "coming": name(NOW + 9 * WEEK)}
    assert set(periods.open_weeks()) == set(new.values())
    assert where() == {"now": name(NOW), **new}
    write("later", -20 * WEEK)
    assert where()["later"] == "orchestrator_event_default"


def test_weeks_that_are_over_are_dropped_and_no_others():
    for ago in (30, 20, 12):
        write(f"{ago} weeks", ago * WEEK)
    periods.open_weeks()
    assert periods.begins() <= NOW - 30 * WEEK
    gone = periods.drop_weeks(NOW - 13 * WEEK)
    assert gone == [name(NOW - 30 * WEEK), name(NOW - 20 * WEEK)]
    assert list(where()) == ["12 weeks"]
    assert periods.drop_weeks(NOW - 13 * WEEK) == []
    assert NOW - 13 * WEEK <= periods.begins() <= NOW - 12 * WEEK


def test_a_week_of_which_a_part_is_kept_is_kept():
    write("old", 20 * WEEK)
    periods.open_weeks()
    end = datetime.strptime(f"{NOW - 20 * WEEK:%G %V} 1", "%G %V %u").replace(tzinfo=UTC) + WEEK
    assert periods.drop_weeks(end - timedelta(seconds=1)) == []
    assert len(periods.drop_weeks(end)) == 1


def test_nobody_has_dropped_what_is_younger_than_a_week():
    write("new")
    assert periods.drop_weeks(NOW + 52 * WEEK) == []
    assert list(where()) == ["new"]


def test_the_feed_misses_nothing_across_weeks_and_when_they_are_turned():
    write("a", 30 * WEEK)
    first = journal.after(None, 1)
    write("b", -9 * WEEK)
    write("c")
    periods.open_weeks()
    rest = journal.after(first.cursor)
    assert [it.what for page in (first, rest) for it in page.events] == ["a", "b", "c"]
    write("d", 10 * WEEK)
    periods.drop_weeks(NOW - 13 * WEEK)
    assert [it.what for it in journal.after(rest.cursor).events] == ["d"]
    assert [it.what for it in journal.after(None).events] == ["b", "c", "d"]


def test_two_processes_at_once_do_it_once(in_threads):
    for ago in range(20, 30):
        write(f"{ago}", ago * WEEK)
    done = []
    calls = [periods.open_weeks, lambda: periods.drop_weeks(NOW - 13 * WEEK)] * 4
    assert in_threads(*(lambda call=call: done.extend(call()) for call in calls)) == []
    done += periods.open_weeks()
    done += periods.drop_weeks(NOW - 13 * WEEK)
    assert sorted(done) == sorted([name(NOW - ago * WEEK) for ago in range(20, 30)] * 2)
    assert where() == {}


def test_who_reads_and_never_ends_keeps_weeks_from_being_dropped_and_nobody_from_writing():
    write("old", 20 * WEEK)
    periods.open_weeks()
    with open_transaction(lambda: list(Event.objects.all())):
        began = time.monotonic()
        with pytest.raises(OperationalError, match="lock timeout"):
            periods.drop_weeks(NOW - 13 * WEEK)
        write("new")
        assert time.monotonic() - began < 2
    assert periods.drop_weeks(NOW - 13 * WEEK) == [name(NOW - 20 * WEEK)]
    assert list(where()) == ["new"]


def test_new_weeks_are_made_beside_who_writes():
    write("now")
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {weeks()[-1]}")
    with open_transaction(lambda: write("open")):
        assert periods.open_weeks() == [name(NOW + periods.AHEAD * WEEK)]
    assert list(where()) == ["now", "open"]


def test_the_journal_of_an_earlier_release_is_kept_whole_without_being_copied():
    write("old", 30 * WEEK)
    write("now")
    write("its clock was wrong", -20 * WEEK)
    before = list(Event.objects.order_by("pk").values())
    call_command("migrate", "orchestrator", "0017_live_executions", verbosity=0)
    write("another")
    call_command("migrate", verbosity=0)
    assert list(Event.objects.order_by("pk").values())[:3] == before
    monday = NOW + WEEK
    kept = f"orchestrator_event_before_{monday:%Gw%V}"
    assert set(where().values()) == {kept, name(NOW + 20 * WEEK)}
    assert periods.begins() is None
    last = Event.objects.latest("pk").pk
    assert Namespace.objects.create(pk="new").journal_from > last
    write("next")
    assert Event.objects.latest("pk").pk > last + 1


def test_what_was_before_the_weeks_is_dropped_when_all_of_it_is_over():
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE orchestrator_event_before PARTITION OF orchestrator_event"
            " FOR VALUES FROM (MINVALUE) TO ('2020-01-06 00:00+00')"
        )
    write("long ago", NOW - datetime(2019, 5, 1, tzinfo=UTC))
    assert (periods.begins(), list(where().values())) == (None, ["orchestrator_event_before"])
    assert periods.drop_weeks(datetime(2020, 1, 5, tzinfo=UTC)) == []
    assert periods.drop_weeks(datetime(2020, 1, 6, tzinfo=UTC)) == ["orchestrator_event_before"]


JOB, NODE = UUID(int=1), UUID(int=2)
LISTS = {
    "the feed": Event.objects.filter(pk__gt=300, pk__lte=2000).order_by("pk"),
    "what is shown of namespaces": Event.objects.filter(
        journal.of_namespaces(["default"], cluster=False)
    ).order_by("-pk"),
    "the newest": Event.objects.order_by("-pk"),
    "those of a job": Event.objects.filter(job_id=JOB).order_by("-pk"),
    "those of a node": Event.objects.filter(node_id=NODE).order_by("-pk"),
}


@pytest.mark.parametrize("what", LISTS)
def test_a_list_reads_no_more_than_it_shows_of_fourteen_weeks(what):
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orchestrator_event"
            " (topic, what, actor, message, data, at, namespace, job_id, node_id)"
            " SELECT 'job', 'x', '', '', '{}', now() - n * interval '20 minutes', 'default',"
            " %s, %s FROM generate_series(7000, 1, -1) n",
            [JOB, NODE],
        )
        periods.open_weeks()
        cursor.execute("ANALYZE orchestrator_event")
    plan = json.loads(LISTS[what][:25].explain(analyze=True, format="json"))[0]["Plan"]
    assert sum(looked_at(plan)) <= 25 + len(weeks()) + 2


def looked_at(plan):
    """How many events each part of *plan* has read."""
    if plan.get("Relation Name", "").startswith("orchestrator_event"):
        left_out = plan.get("Rows Removed by Filter", 0)
        yield plan["Actual Loops"] * (plan["Actual Rows"] + left_out)
    for part in plan.get("Plans", ()):
        yield from looked_at(part)
