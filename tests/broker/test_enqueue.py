"""Asking for evaluations, and what becomes of it in the rows of the queue."""

import random

import pytest
from django.db import connection, transaction

from orchestrator import broker
from orchestrator.lifecycle import Trigger
from orchestrator.models import BrokerTrigger, FreedNode
from tests import rows


@pytest.mark.django_db
class TestAlone:
    def test_what_is_asked_for_is_lent_with_its_reasons(self, queue):
        job = queue.job()
        broker.enqueue([job.pk], Trigger.EXECUTION_UPDATE)
        broker.enqueue([job.pk, job.pk], Trigger.EXECUTION_UPDATE)
        lease = queue.one()
        assert lease.job == job.pk
        assert lease.triggers == {"job-submit": 1, "execution-update": 2}
        assert not BrokerTrigger.objects.exists()

    def test_asking_for_nothing_is_nothing(self):
        broker.enqueue([], Trigger.RETRY)
        broker.capacity_freed([])
        assert not BrokerTrigger.objects.exists()
        assert not FreedNode.objects.exists()

    def test_what_is_rolled_back_was_not_asked_for(self, queue):
        job = rows.job()
        with transaction.atomic():
            broker.enqueue(job.pk, Trigger.RETRY)
            transaction.set_rollback(True)
        assert queue.lease() == []

    def test_of_a_job_that_is_not_there_nothing_is_asked(self):
        broker.enqueue(rows.unknown_id(), Trigger.RETRY)
        assert not BrokerTrigger.objects.exists()

    def test_what_was_asked_of_a_job_that_is_gone_is_forgotten(self, queue):
        job = queue.job()
        BrokerTrigger.objects.update(job=rows.unknown_id())
        assert job.pk
        broker.forget_orphans()
        assert not BrokerTrigger.objects.exists()
        assert queue.lease() == []

    def test_a_changed_priority_counts_from_the_next_trigger_on(self, queue):
        first, second = queue.jobs(2)
        type(second).objects.filter(pk=second.pk).update(priority=90)
        broker.enqueue(second.pk, Trigger.JOB_UPDATE)
        assert [lease.job for lease in queue.lease()] == [second.pk, first.pk]

    def test_thousands_of_triggers_are_answered_by_one_evaluation_each(
        self, queue, django_assert_max_num_queries
    ):
        jobs = [rows.job() for _ in range(10)]
        for _ in range(300):
            broker.enqueue([job.pk for job in jobs], Trigger.EXECUTION_UPDATE)
        with django_assert_max_num_queries(2):
            leases = queue.lease(400)
        assert [one.triggers for one in leases] == [{"execution-update": 300}] * 10
        assert not BrokerTrigger.objects.exists()


@pytest.mark.django_db(transaction=True)
class TestTogether:
    def test_no_trigger_is_lost(self, queue, at_once):
        jobs = [rows.job() for _ in range(5)]

        def ask():
            for n in range(40):
                broker.enqueue(random.Random(n).sample([j.pk for j in jobs], 2), Trigger.RETRY)

        def work(name):
            def run():
                answered = 0
                for _ in range(60):
                    leases = queue.lease(2, name)
                    answered += sum(sum(one.triggers.values()) for one in leases)
                    queue.settle(*leases)
                return answered

            return run

        answers = at_once([ask, ask, ask, work("a"), work("b"), work("c")])
        answers.append(work("last")())
        assert not BrokerTrigger.objects.exists()
        assert sum(filter(None, answers)) == 3 * 40 * 2

    def test_who_holds_a_row_delays_only_its_own_job(self, queue, at_once):
        held, other = queue.jobs(2)
        lease = next(one for one in queue.lease() if one.job == held.pk)
        broker.enqueue([held.pk] * 1, Trigger.EXECUTION_UPDATE)
        third = queue.job()
        with transaction.atomic():
            assert broker.hold([lease]) == {lease}
            (found,) = at_once([lambda: queue.lease(worker="x")])
        assert [one.job for one in found] == [third.pk]
        assert other.pk not in [one.job for one in found]
        assert BrokerTrigger.objects.get().job_id == held.pk

    def test_asking_under_any_lock_takes_none(self, queue, at_once):
        """A report holds its node and asks; a plan holds the broker row and wants the node."""
        job, node = queue.job(), rows.node()
        lease = queue.one()

        def report():
            for _ in range(30):
                with transaction.atomic():
                    _lock("nodes_node", node.pk)
                    broker.enqueue(job.pk, Trigger.EXECUTION_UPDATE)
                    broker.capacity_freed([node.pk])

        def plan():
            for _ in range(30):
                with transaction.atomic():
                    broker.hold([lease])
                    _lock("orchestrator_job", job.pk)
                    _lock("nodes_node", node.pk)

        def submit():
            for _ in range(30):
                with transaction.atomic():
                    _lock("orchestrator_job", job.pk)
                    broker.enqueue(job.pk, Trigger.JOB_UPDATE)

        def lend():
            for _ in range(60):
                queue.lease(worker="other")

        at_once([report, report, plan, submit, lend, lend])
        assert BrokerTrigger.objects.count() == 30 + 30 + 30


def _lock(table, pk):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT FROM {table} WHERE id = %s FOR UPDATE", [pk])
