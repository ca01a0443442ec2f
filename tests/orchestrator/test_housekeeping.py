"""What time alone causes."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from orchestrator import housekeeping
from orchestrator.lifecycle import Observed
from orchestrator.models import BrokerTrigger, IdempotencyKey
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)


def test_what_runs_on_a_lost_node_is_lost_even_if_nobody_wrote_it_at_once():
    node, job = rows.node(connection="lost"), rows.job()
    running = rows.execution(job, node, observed=Observed.RUNNING)
    healthy = rows.execution(rows.job(), rows.node(), observed=Observed.RUNNING)
    housekeeping.notice_silence()
    running.refresh_from_db()
    healthy.refresh_from_db()
    assert (running.observed, healthy.observed) == ("lost", "running")
    assert BrokerTrigger.objects.get(job_id=job.pk).trigger == "node-lost"


def test_answers_are_kept_for_a_day():
    for name, age in (("old", 25), ("young", 23)):
        IdempotencyKey.objects.create(
            actor="a", key=name, request_digest="d", status=200, answer={}
        )
        IdempotencyKey.objects.filter(key=name).update(created_at=Now() - timedelta(hours=age))
    housekeeping.forget_answers()
    assert list(IdempotencyKey.objects.values_list("key", flat=True)) == ["young"]
