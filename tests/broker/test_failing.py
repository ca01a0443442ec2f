"""Evaluations that fail: back-off, dead letter, and back."""

from datetime import timedelta

import pytest
from django.utils import timezone

from orchestrator import broker
from orchestrator.explain.errors import Conflict
from orchestrator.lifecycle import Trigger
from orchestrator.models import BrokerTrigger, Evaluation, Event

pytestmark = pytest.mark.django_db


def seconds_left(row):
    return (row.retry_at - timezone.now()) / timedelta(seconds=1)


def fail(queue, times):
    """Let the only job fail that often, without waiting."""
    for _ in range(times):
        queue.let_time_pass()
        assert broker.nack(queue.one(), "ValueError: poison")


def park(queue):
    fail(queue, 5)


def test_a_failed_evaluation_waits_longer_each_time(queue):
    job = queue.job()
    for backoff in (1, 5, 10, 15):
        fail(queue, 1)
        assert backoff * 0.85 < seconds_left(queue.row(job)) <= backoff * 1.1
        assert queue.lease() == []
    assert [e.state for e in Evaluation.objects.all()] == ["failed"] * 4
    assert Evaluation.objects.first().error == "ValueError: poison"


def test_after_five_deliveries_it_is_parked_with_its_error(queue):
    job = queue.job()
    park(queue)
    row = queue.row(job)
    assert row.dead_letter == "ValueError: poison"
    assert 55 < seconds_left(row) <= 360
    assert queue.lease() == []


def test_a_dead_letter_is_retried_once_by_itself(queue):
    job = queue.job()
    park(queue)
    fail(queue, 1)
    assert queue.row(job).dead_letter is not None
    queue.let_time_pass()
    assert queue.lease() == []


def test_a_retry_that_succeeds_ends_it(queue):
    job = queue.job()
    park(queue)
    queue.let_time_pass()
    queue.settle(queue.one())
    assert queue.stands(job) is None


@pytest.mark.parametrize("trigger", [Trigger.NODE_JOIN, Trigger.JOB_UPDATE])
def test_anything_new_unparks_it_for_five_more_tries(queue, trigger):
    job = queue.job()
    park(queue)
    broker.enqueue(job.pk, trigger)
    again = queue.one()
    assert (again.delivery, again.triggers[trigger]) == (1, 1)
    broker.nack(again, "again")
    assert queue.row(job).dead_letter is None


def test_a_trickle_of_reports_does_not_shorten_the_back_off(queue):
    job = queue.job()
    fail(queue, 2)
    broker.enqueue(job.pk, Trigger.EXECUTION_UPDATE)
    assert queue.lease() == []


def test_a_person_need_not_wait_for_the_back_off(queue):
    job = queue.job()
    fail(queue, 2)
    broker.enqueue(job.pk, Trigger.JOB_STOP)
    assert queue.one().delivery == 1


def test_a_poisoned_job_delays_no_other(queue):
    poisoned, healthy = queue.job(90), queue.job(10)
    broker.nack(queue.one(), "poison")
    assert queue.one().job == healthy.pk
    assert queue.row(poisoned).deliveries == 1


def test_a_job_that_kills_its_workers_is_parked_too(queue):
    job = queue.job()
    for n in range(5):
        queue.let_time_pass()
        queue.one(f"worker-{n}")
        broker.give_back([f"worker-{n}"])
    assert queue.row(job).dead_letter == "its worker died"


def test_errors_of_any_text_are_kept(queue):
    queue.job()
    broker.nack(queue.one(), "nul \0 and " + "x" * 100_000)
    assert len(Evaluation.objects.get().error) == 10_000


class TestOperators:
    def test_a_dead_letter_can_be_tried_again(self, queue):
        job = queue.job()
        park(queue)
        broker.retry_dead(job.pk, "user:ana")
        assert queue.one().delivery == 1
        assert Event.objects.filter(what="dead-letter-retried", job_id=job.pk).exists()

    def test_a_dead_letter_can_be_dropped(self, queue):
        job = queue.job()
        park(queue)
        broker.drop_dead(job.pk, "user:ana")
        queue.let_time_pass()
        assert queue.lease() == []
        assert Evaluation.objects.latest("pk").state == "cancelled"
        broker.enqueue(job.pk, Trigger.JOB_UPDATE)
        assert queue.one().triggers == {"job-update": 1}

    @pytest.mark.parametrize("do", [broker.retry_dead, broker.drop_dead])
    def test_what_is_not_parked_cannot_be(self, queue, do):
        with pytest.raises(Conflict, match="no dead letter"):
            do(queue.job().pk, "user:ana")

    def test_a_job_can_be_evaluated_now(self, queue):
        job = queue.job()
        at = timezone.now() + timedelta(hours=1)
        queue.settle(queue.one(), followups=[(at, Trigger.RETRY)])
        broker.evaluate_now(job.pk, "user:ana")
        assert queue.one().triggers == {"operator": 1}


def test_the_queue_counts_itself(queue):
    job = queue.job(90)
    park(queue)
    later = timezone.now() + timedelta(hours=1)
    queue.job(80)
    queue.settle(queue.one(), followups=[(later, Trigger.RETRY)])
    queue.job(70)
    queue.one()
    queue.jobs(2)
    BrokerTrigger.objects.update(since=timezone.now() - timedelta(minutes=1))
    stats = broker.stats()
    assert (stats.ready, stats.leased, stats.waiting, stats.blocked, stats.dead) == (2, 1, 1, 0, 1)
    assert stats.rate == 0.6
    assert 60 <= stats.oldest < 90
    assert stats.by_type == {"batch": {"ready": 2, "leased": 1, "waiting": 1, "dead": 1}}
    assert broker.in_state(broker.QueueState.DEAD, 10) == [job.pk]
    assert len(broker.in_state(broker.QueueState.READY, 10)) == 2
