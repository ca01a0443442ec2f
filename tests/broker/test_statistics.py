"""How long evaluations have waited, and whether anybody evaluates at all."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from orchestrator import broker
from orchestrator.broker.leases import MOST_DELIVERIES
from orchestrator.lifecycle import Trigger
from orchestrator.models import BrokerDue, BrokerRow, BrokerTrigger, Evaluation
from tests import rows

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)


def ask_a_minute_ago(*jobs):
    broker.enqueue([job.pk for job in jobs], Trigger.JOB_SUBMIT)
    BrokerTrigger.objects.update(since=Now() - MINUTE)


def is_a_minute(seconds):
    return 60 <= seconds < 90


def test_an_empty_queue_has_waited_for_nothing():
    assert (broker.stats().oldest, broker.stalled_for()) == (0, 0)


def test_a_job_waits_from_the_moment_it_was_asked_about():
    ask_a_minute_ago(rows.job())
    assert is_a_minute(broker.stats().oldest)


def test_what_has_become_due_waits_from_then_on(queue):
    job = queue.job()
    queue.settle(queue.one(), followups=[(job.created_at, Trigger.RETRY)])
    BrokerDue.objects.update(at=Now() - MINUTE)
    assert is_a_minute(broker.stats().oldest)
    assert queue.one().job == job.pk
    assert broker.stats().oldest == 0


@pytest.mark.parametrize("deliveries", [2, MOST_DELIVERIES])
def test_what_had_to_wait_before_it_is_tried_again_is_not_stalled(queue, deliveries):
    """Back-off and dead letters: their moment counts, not when they were asked."""
    queue.job()
    for _ in range(deliveries):
        queue.let_time_pass()
        broker.nack(queue.one(), "it failed")
    Evaluation.objects.update(leased_at=Now() - 2 * MINUTE)
    BrokerRow.objects.update(since=Now() - 3 * MINUTE, retry_at=Now() - MINUTE)
    BrokerDue.objects.update(at=Now() - MINUTE)
    assert is_a_minute(broker.stalled_for())
    broker.catch_up()
    assert is_a_minute(broker.stalled_for())


def test_what_is_not_due_yet_or_being_looked_at_or_gone_does_not_wait(queue):
    queue.job()
    lease = queue.one()
    broker.enqueue([lease.job, rows.unknown_id()], Trigger.EXECUTION_UPDATE)
    BrokerTrigger.objects.update(since=Now() - MINUTE)
    queue.job()
    later = queue.one()
    queue.settle(later, followups=[(lease.waited_since + 60 * MINUTE, Trigger.RETRY)])
    assert broker.stats().oldest == 0


class TestStalled:
    def test_it_is_stalled_for_as_long_as_work_waits_and_none_begins(self, queue):
        queue.job()
        queue.settle(queue.one())
        Evaluation.objects.update(leased_at=Now() - MINUTE / 2)
        ask_a_minute_ago(rows.job())
        assert 30 <= broker.stalled_for() < 60
        assert 30 <= broker.stats().stalled < 60

    def test_a_cluster_that_has_never_evaluated_is_stalled_too(self):
        ask_a_minute_ago(rows.job())
        assert is_a_minute(broker.stalled_for())

    def test_a_long_queue_that_is_worked_on_is_not_stalled(self, queue):
        ask_a_minute_ago(rows.job(), rows.job())
        queue.one()
        assert is_a_minute(broker.stats().oldest)
        assert broker.stalled_for() < 30

    def test_nobody_is_expected_to_evaluate_while_scheduling_is_paused(self):
        ask_a_minute_ago(rows.job())
        broker.pause("maintenance", "user:ana")
        assert broker.stalled_for() == 0
        broker.resume("user:ana")
        assert is_a_minute(broker.stalled_for())
