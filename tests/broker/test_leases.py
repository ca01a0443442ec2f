"""Leases: one a job, the most urgent first, fenced, and freed when nobody works on them."""

import threading
from collections import Counter

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from orchestrator import broker
from orchestrator.broker.leases import _LEASE
from orchestrator.broker.looking import Look
from orchestrator.explain.errors import LeaseLost
from orchestrator.lifecycle import Trigger
from orchestrator.models import BrokerRow, BrokerTrigger, Evaluation
from tests import rows


@pytest.mark.django_db
class TestAlone:
    def test_the_higher_priority_comes_first_then_who_has_waited_longer(self, queue):
        low, late, early = queue.job(10), queue.job(60), queue.job(60)
        BrokerTrigger.objects.filter(job=early).update(since="2020-01-01T00:00Z")
        assert [one.job for one in queue.lease()] == [early.pk, late.pk, low.pk]

    def test_no_more_are_lent_than_were_asked_for(self, queue):
        queue.jobs(3)
        assert len(queue.lease(2)) == 2
        assert len(queue.lease(2)) == 1
        assert queue.lease(2) == []

    def test_only_the_types_asked_for_are_lent(self, queue):
        job = queue.job()
        assert broker.lease(["service"], 5, "w") == []
        assert [one.job for one in broker.lease(["service", "batch"], 5, "w")] == [job.pk]

    def test_each_lease_is_written_down(self, queue):
        job = queue.job()
        lease = queue.one("somebody")
        assert not Evaluation.objects.exists(), "it is not over"
        queue.settle(lease)
        written = Evaluation.objects.get(pk=lease.evaluation)
        assert (written.job_id, written.state, written.worker) == (job.pk, "complete", "somebody")
        assert (written.triggers, written.delivery) == ({"job-submit": 1}, 1)
        assert written.waited_since == lease.waited_since < written.leased_at

    def test_nothing_is_lent_while_scheduling_is_paused(self, queue):
        queue.job()
        broker.pause("maintenance", "user:ana")
        assert queue.lease() == []
        broker.resume("user:ana")
        assert len(queue.lease()) == 1

    def test_a_lease_that_was_taken_over_is_no_longer_good(self, queue):
        queue.job()
        old = queue.one("old")
        queue.let_time_pass()
        broker.sweep()
        new = queue.one("new")
        assert new.evaluation > old.evaluation
        assert broker.hold([old, new]) == {new}
        assert not broker.nack(old, "too late")
        broker.renew([old])
        with pytest.raises(LeaseLost):
            broker.ack([broker.Result(old)])

    def test_an_expired_lease_that_nobody_took_may_still_commit(self, queue):
        job = queue.job()
        lease = queue.one()
        queue.let_time_pass()
        queue.settle(lease)
        assert queue.stands(job) is None

    def test_a_lease_of_another_worker_is_not_good(self, queue):
        """A database that crashed may number a lease again; the worker's name tells them apart."""
        queue.job()
        lease = queue.one("new")
        assert broker.hold([type(lease)(lease.job, lease.evaluation, "old")]) == set()

    def test_renewing_makes_a_lease_last(self, queue):
        job = queue.job()
        lease = queue.one()
        queue.let_time_pass()
        broker.renew([lease])
        assert broker.sweep() == 0
        assert queue.row(job).leased_until > queue.row(job).leased_at

    def test_a_sweep_frees_what_has_expired_and_nothing_else(self, queue):
        expired, fresh = queue.jobs(2)
        leases = queue.lease()
        BrokerRow.objects.filter(job=expired).update(leased_until="2020-01-01T00:00Z")
        assert broker.sweep() == 1
        written = Evaluation.objects.get(job=expired)
        assert (written.state, written.error) == ("failed", "lease expired")
        assert [one.job for one in queue.lease()] == [expired.pk]
        assert broker.hold(leases) == {one for one in leases if one.job == fresh.pk}

    def test_what_a_dead_worker_had_is_given_back_at_once_with_its_reasons(self, queue):
        job = queue.job()
        queue.one("dead")
        queue.job()
        queue.one("alive")
        assert sorted(broker.leaseholders()) == ["alive", "dead"]
        assert broker.give_back(["dead"]) == 1
        again = queue.one()
        assert (again.job, again.delivery, again.triggers) == (job.pk, 2, {"job-submit": 1})

    def test_a_job_that_failed_before_is_lent_alone(self, queue):
        """What it does to its worker must happen to no other job."""
        others = queue.jobs(3)
        suspect = queue.job(60)
        assert queue.one("dead").job == suspect.pk
        broker.give_back(["dead"])
        assert [one.job for one in queue.lease()] == [suspect.pk]
        assert {one.job for one in queue.lease()} == {job.pk for job in others}

    def test_a_job_that_failed_before_waits_for_its_turn(self, queue):
        suspect = queue.job(40)
        queue.one("dead")
        broker.give_back(["dead"])
        others = queue.jobs(3)
        assert {one.job for one in queue.lease()} == {job.pk for job in others}
        assert [one.job for one in queue.lease()] == [suspect.pk]


@pytest.mark.django_db(transaction=True)
class TestTogether:
    def test_many_workers_never_hold_the_same_job_at_once(self, queue, at_once):
        jobs = [rows.job() for _ in range(4)]
        for job in jobs:
            broker.enqueue(job.pk, Trigger.JOB_SUBMIT)
        guard, holders, answered = threading.Lock(), set(), Counter()

        def answer(leases):
            for one in leases:
                answered[one.job] += sum(one.triggers.values())

        def work(name):
            def run():
                for _ in range(30):
                    leases = queue.lease(2, name)
                    with guard:
                        assert holders.isdisjoint(one.job for one in leases)
                        holders.update(one.job for one in leases)
                        answer(leases)
                    broker.enqueue([job.pk for job in jobs], Trigger.RETRY)
                    with guard:
                        holders.difference_update(one.job for one in leases)
                    queue.settle(*leases)

            return run

        at_once([work(f"w{n}") for n in range(6)])
        while leases := queue.lease():
            answer(leases)
            queue.settle(*leases)
        assert answered == {job.pk: 1 + 6 * 30 for job in jobs}

    def test_a_sweep_passes_over_a_plan_that_is_being_committed(self, queue, at_once):
        job = queue.job()
        lease = queue.one()
        queue.let_time_pass()
        with transaction.atomic():
            broker.hold([lease])
            assert at_once([broker.sweep]) == [0]
            broker.ack([broker.Result(lease)])
        assert queue.stands(job) is None

    def test_a_lease_that_is_renewed_between_look_and_sweep_is_not_swept(self, queue, at_once):
        queue.job()
        lease = queue.one()
        queue.let_time_pass()

        def renew_in_between(execute, sql, *rest):
            if "dead_letter = CASE" in sql:
                at_once([lambda: broker.renew([lease])])
            return execute(sql, *rest)

        with connection.execute_wrapper(renew_in_between):
            assert broker.sweep() == 0
        with transaction.atomic():
            assert broker.hold([lease]) == {lease}


@pytest.mark.django_db
def test_the_length_of_the_queue_costs_a_lease_nothing(queue):
    """With a hundred thousand that wait, a lease is an index scan of a few pages."""
    queue.jobs(10)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orchestrator_brokertrigger"
            " (job_id, urgency, namespace, type, trigger, since)"
            " SELECT gen_random_uuid(), urgency, namespace, 'batch', 'retry', clock_timestamp()"
            " FROM generate_series(1, 25000) n, (VALUES (-50, 'default'), (-50, 'other'),"
            " (-40, 'default'), (0, 'last')) p(urgency, namespace)"
        )
        cursor.execute("ANALYZE orchestrator_brokertrigger")
        look = Look(is_whole=True, since={}, after=None)
        cursor.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) WITH RECURSIVE {look.pairs}, {_LEASE}",
            {"types": None, "limit": 5, "worker": "w", "seconds": 60.0, **look.parameters},
        )
        (((plan,),),) = cursor.fetchall()
    scans = list(_scans(plan["Plan"], "orchestrator_brokertrigger"))
    assert "Seq Scan" not in {scan["Node Type"] for scan in scans}, scans
    read = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    assert read < 500
    assert BrokerRow.objects.filter(leased_until__gt=Now()).count() == 5


def _scans(node, table):
    if node.get("Relation Name") == table and "Scan" in node["Node Type"]:
        yield node
    for child in node.get("Plans", ()):
        yield from _scans(child, table)
