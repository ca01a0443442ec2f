"""What becomes of a job once its plan is written."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from nodes.protocol.resources import Resources
from orchestrator import broker
from orchestrator.explain.errors import LeaseLost
from orchestrator.explain.reasons import NoRoom
from orchestrator.lifecycle import Trigger
from orchestrator.models import BrokerRow, Evaluation
from orchestrator.scheduling.plan import Blocked

pytestmark = pytest.mark.django_db

BLOCKED = Blocked(need=Resources(cpu=1000), missing=1, why=NoRoom(1))


def history():
    return list(Evaluation.objects.order_by("pk").values_list("state", "outcome"))


def test_a_complete_plan_leaves_nothing_to_do(queue):
    job = queue.job()
    queue.settle(queue.one(), outcome="placed 3", record={"known": 5})
    assert queue.lease() == []
    assert history() == [("complete", "placed 3")]
    assert Evaluation.objects.get().record == {"known": 5}
    assert queue.stands(job) is None


def test_a_plan_applied_in_part_leaves_its_job_ready(queue):
    queue.job()
    first = queue.one()
    queue.settle(first, complete=False, outcome="dropped 1")
    again = queue.one()
    assert again.delivery == 1
    assert again.waited_since == first.waited_since, "it has been ready since then"


def test_what_was_asked_during_the_evaluation_is_evaluated_again(queue):
    job = queue.job()
    lease = queue.one()
    broker.enqueue(job.pk, Trigger.EXECUTION_UPDATE)
    queue.settle(lease, blocked=BLOCKED, followups=[(timezone.now(), Trigger.RETRY)])
    again = queue.one()
    assert again.triggers == {"execution-update": 1}
    assert again.waited_since > lease.waited_since
    assert queue.stands(job).state == "leased", "it waits for nothing else"
    queue.settle(again)
    assert queue.stands(job) is None


def test_a_job_of_which_nothing_is_wanted_leaves_the_queue_until_somebody_asks(queue):
    job = queue.job()
    lease = queue.one()
    queue.settle(lease)
    assert not BrokerRow.objects.exists()
    broker.enqueue(job.pk, Trigger.JOB_RERUN)
    again = queue.one()
    assert again.evaluation > lease.evaluation, "its fence never goes back"


class TestFollowUps:
    def test_it_is_evaluated_then_and_not_before(self, queue):
        job = queue.job()
        at = timezone.now() + timedelta(hours=1)
        later = (at + timedelta(hours=1), Trigger.JOB_TIMEOUT)
        queue.settle(queue.one(), followups=[later, (at, Trigger.EXECUTION_TIMEOUT)])
        assert (queue.stands(job).state, queue.due(job)) == ("waiting", at)
        assert queue.lease() == []
        queue.let_time_pass()
        assert queue.one().triggers == {"execution-timeout": 1}
        assert queue.due(job) is None

    def test_whoever_asks_before_then_is_answered(self, queue):
        job = queue.job()
        at = timezone.now() + timedelta(hours=1)
        queue.settle(queue.one(), followups=[(at, Trigger.RETRY)])
        broker.enqueue(job.pk, Trigger.JOB_STOP)
        assert queue.one().triggers == {"job-stop": 1}
        assert queue.due(job) is None

    def test_one_that_is_due_already_makes_no_hot_loop(self, queue):
        job = queue.job()
        before = timezone.now()
        queue.settle(queue.one(), followups=[(before - timedelta(days=1), Trigger.RETRY)])
        assert queue.due(job) > before


class TestTheFence:
    def test_of_a_group_the_stale_one_is_left_out(self, queue):
        queue.jobs(3)
        leases = queue.lease()
        BrokerRow.objects.filter(job=leases[1].job).update(evaluation_id=0)
        with transaction.atomic():
            held = broker.hold(leases)
            broker.ack([broker.Result(one) for one in held])
        assert held == {leases[0], leases[2]}
        assert set(Evaluation.objects.values_list("job", flat=True)) == {it.job for it in held}

    def test_a_plan_that_was_not_held_is_undone(self, queue):
        queue.jobs(2)
        good, stale = queue.lease()
        BrokerRow.objects.filter(job=stale.job).update(evaluation_id=0)
        with pytest.raises(LeaseLost), transaction.atomic():
            broker.ack([broker.Result(good), broker.Result(stale)])
        assert broker.hold([good]) == {good}

    def test_nobody_acknowledges_twice(self, queue):
        queue.job()
        lease = queue.one()
        queue.settle(lease)
        assert broker.hold([lease]) == set()


def test_acknowledging_nothing_is_nothing():
    broker.ack([])
