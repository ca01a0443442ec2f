"""Where work is looked for once looks from the beginning have become slow."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from orchestrator import broker
from orchestrator.broker import due, leases, looking
from orchestrator.broker.looking import MARGIN, Pace, Place
from orchestrator.lifecycle import Trigger
from orchestrator.models import BrokerDue, BrokerTrigger
from tests import rows

LONG = timedelta(hours=1)


@pytest.fixture
def slow(monkeypatch):
    """From now on no look begins at the beginning, as one took long."""
    monkeypatch.setattr(looking, "BRISK", 0.0)
    monkeypatch.setattr(looking, "SHARE", 1e-9)
    monkeypatch.setattr(looking, "LONGEST", 1e9)
    for module, name in ((leases, "_place"), (due, "_place"), (due, "_times")):
        place = Place()
        place._took = 1.0
        monkeypatch.setattr(module, name, place)


@pytest.mark.django_db
class TestWhereALookFromTheBeginningIsSlow:
    def test_what_is_asked_after_the_last_find_is_found(self, queue, slow):
        first = queue.job()
        assert queue.one().job == first.pk
        second = queue.job()
        assert queue.one().job == second.pk
        assert queue.lease() == []
        third = queue.job()
        assert broker.work().ready
        assert queue.one().job == third.pk

    def test_what_is_older_waits_for_a_look_from_the_beginning(self, queue, slow, monkeypatch):
        queue.job()
        queue.one()
        old = queue.job()
        BrokerTrigger.objects.update(since=Now() - LONG)
        assert queue.lease() == []
        monkeypatch.setattr(leases._place, "_whole", Pace())
        assert queue.one().job == old.pk

    def test_what_was_left_for_the_next_group_is_found(self, queue, slow):
        jobs = queue.jobs(5)
        assert len(queue.lease(2)) == 2
        assert len(queue.lease(2)) == 2
        (last,) = queue.lease(2)
        assert last.job in {job.pk for job in jobs}

    def test_what_was_asked_during_a_long_evaluation_is_found_by_its_worker(self, queue, slow):
        job = queue.job()
        lease = queue.one()
        broker.enqueue(job.pk, Trigger.EXECUTION_UPDATE)
        BrokerTrigger.objects.update(since=Now() - LONG)
        queue.settle(lease)
        assert queue.one().job == job.pk

    def test_a_plan_that_was_written_in_part_is_found_again(self, queue, slow):
        job = rows.job()
        rows.asked(job, timezone.now() - LONG)
        queue.settle(queue.one(), complete=False)
        assert queue.one().job == job.pk

    def test_what_has_been_due_for_long_is_found(self, queue, slow):
        job = queue.job()
        queue.settle(queue.one(), followups=[(timezone.now() + LONG, Trigger.RETRY)])
        assert queue.lease() == []
        BrokerDue.objects.update(at=Now())
        assert broker.work().due_in <= 0
        assert queue.one().job == job.pk

    @pytest.mark.parametrize("ahead", [LONG, -LONG])
    def test_the_clock_of_the_process_matters_to_nothing(self, queue, slow, monkeypatch, ahead):
        queue.job()
        assert broker.work().ready
        queue.one()
        there = timezone.now() + ahead
        monkeypatch.setattr(timezone, "now", lambda: there)
        assert queue.lease() == []
        assert not broker.work().ready
        job = queue.job()
        broker.capacity_freed([rows.node().pk])
        assert broker.work().ready
        assert broker.work().freed
        assert queue.one().job == job.pk

    def test_who_leases_one_type_loses_sight_of_no_other(self, queue, slow):
        queue.job()
        queue.one()
        old, new = queue.jobs(2)
        BrokerTrigger.objects.filter(job=old).update(type="service")
        BrokerTrigger.objects.filter(job=new).update(since=Now() + 2 * MARGIN)
        assert [one.job for one in broker.lease(["batch"], 5, "w")] == [new.pk]
        assert queue.one().job == old.pk

    def test_a_freed_node_is_heard_of(self, queue, slow):
        assert not broker.work().freed
        broker.capacity_freed([rows.node().pk])
        assert broker.work().freed


@pytest.mark.django_db(transaction=True)
def test_namespaces_take_turns_among_equals_and_the_more_urgent_comes_first(queue):
    for name in ("a", "b", "c"):
        rows.give(rows.user(name), "viewer", name)
    flood = [queue.job(namespace="a") for _ in range(6)]
    few = [queue.job(namespace="b"), queue.job(namespace="c")]
    urgent = queue.job(90, namespace="a")
    first = [one.job for one in queue.lease(5)]
    assert first[0] == urgent.pk
    assert set(first[1:4]) == {flood[0].pk, few[0].pk, few[1].pk}
    assert [one.job for one in queue.lease(10)] == [job.pk for job in flood[2:]]


@pytest.mark.django_db(transaction=True)
def test_namespaces_take_turns_however_small_a_group_is(queue, monkeypatch):
    monkeypatch.setattr(leases, "_place", Place())
    for name in ("a", "b", "c"):
        rows.give(rows.user(name), "viewer", name)
    order = [queue.job(namespace=name) for name in ("a", "a", "c", "a", "c", "b")]
    names = {job.pk: job.namespace_id for job in order}
    assert [names[queue.one().job] for _ in order] == ["a", "b", "c", "a", "c", "a"]


@pytest.mark.django_db(transaction=True)
def test_no_namespace_waits_for_many_that_have_work_all_the_time(queue):
    count = looking.TAKEN_FROM + 6
    for number in range(count):
        rows.give(rows.user(f"u{number}"), "viewer", name := f"ns-{number:03}")
        first = queue.job(namespace=name)
        queue.job(namespace=name)
    assert len(queue.lease(64)) == 64
    assert first.pk in {one.job for one in queue.lease(6)}, "the last in the alphabet"
    assert len({queue.one().job for _ in range(count)}) == count


def test_a_pair_of_which_nothing_was_found_is_looked_at_from_where_it_was():
    place, now = Place(), timezone.now()
    with place.look() as look:
        look.found([((-50, "a"), now), ((-50, "b"), now - LONG)])
    with place.look() as look:
        look.found([((-50, "a"), now + LONG)])
    with place.look() as look:
        assert look.since == {(-50, "a"): now + LONG - MARGIN, (-50, "b"): now - LONG - MARGIN}
        look.found_all(now)
        assert set(look.since.values()) == {now - MARGIN}


def test_what_looks_take_is_a_bounded_share_of_the_time(monkeypatch):
    time = [0.0]
    monkeypatch.setattr(looking, "BRISK", 0.01)
    monkeypatch.setattr(looking.time, "monotonic", lambda: time[0])
    place = Place()

    def look(seconds):
        with place.look() as look:
            time[0] += seconds
        return look.pairs

    whole = look(0.001)
    assert look(0.02) == whole, "the one before was brisk"
    assert look(0.02) == whole, "one may be slow by chance"
    assert look(0.02) != whole
    time[0] += 0.3
    assert look(0.001) != whole
    time[0] += 0.1
    assert look(0.001) == whole, "20 ms in 400"


def test_a_look_that_took_very_long_is_no_reason_to_look_nowhere_for_hours(monkeypatch):
    """It may have been the process that was stopped, or the server that did not answer."""
    time = [0.0]
    monkeypatch.setattr(looking, "BRISK", 0.01)
    monkeypatch.setattr(looking.time, "monotonic", lambda: time[0])
    place = Place()
    with place.look() as whole:
        time[0] += 600
    time[0] += looking.LONGEST
    with place.look() as look:
        assert look.pairs == whole.pairs
