"""How long evaluations have waited, and whether anybody evaluates at all."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from orchestrator import broker
from orchestrator.broker.leases import MOST_DELIVERIES
from orchestrator.lifecycle import Trigger
from orchestrator.models import BrokerRow, BrokerTrigger, Evaluation
from tests import rows

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)


def ask_a_minute_ago(*jobs):
    broker.enqueue([job.pk for job in jobs], Trigger.JOB_SUBMIT)
    BrokerTrigger.objects.update(not_before=Now() - MINUTE, at=Now() - MINUTE)


def is_a_minute(seconds):
    return 60 <= seconds < 90


def test_an_empty_queue_has_waited_for_nothing():
    assert (broker.stats().oldest, broker.stalled_for()) == (0, 0)


def test_a_job_waits_from_the_moment_it_was_asked_about_folded_or_not():
    ask_a_minute_ago(rows.job())
    assert is_a_minute(broker.stats().oldest)
    broker.fold()
    assert is_a_minute(broker.stats().oldest)


def test_what_has_become_due_waits_from_then_on(queue):
    job = queue.job()
    queue.settle(queue.one(), followups=[(BrokerRow.objects.get().ready_since, Trigger.RETRY)])
    BrokerRow.objects.update(not_before=Now() - MINUTE)
    assert is_a_minute(broker.stats().oldest)
    assert queue.one().job == job.pk
    assert broker.stats().oldest == 0


@pytest.mark.parametrize("deliveries", [2, MOST_DELIVERIES])
def test_what_had_to_wait_before_it_is_tried_again_is_not_stalled(queue, deliveries):
    """Back-off and dead letters: their moment counts, folded or not, not when they were asked."""
    queue.job()
    for _ in range(deliveries):
        BrokerRow.objects.update(not_before=None)
        broker.nack(queue.one(), "it failed")
    Evaluation.objects.update(leased_at=Now() - 2 * MINUTE)
    BrokerRow.objects.update(ready_since=Now() - 3 * MINUTE, not_before=Now() - MINUTE)
    assert is_a_minute(broker.stalled_for())
    broker.fold()
    assert is_a_minute(broker.stalled_for())


def test_what_is_not_due_yet_or_being_looked_at_or_gone_does_not_wait(queue):
    queue.job()
    lease = queue.one()
    gone = rows.unknown_id()
    broker.enqueue([lease.job, gone], Trigger.EXECUTION_UPDATE)
    BrokerTrigger.objects.update(not_before=Now() - MINUTE)
    broker.enqueue(rows.job().pk, Trigger.RETRY, not_before=lease.waited_since + 60 * MINUTE)
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
