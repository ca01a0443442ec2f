"""What time alone causes."""

from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from nodes.models import JoinToken, Node
from orchestrator import endpoint
from orchestrator.access import sign_in
from orchestrator.lifecycle import Observed
from orchestrator.models import (
    BrokerTrigger,
    Event,
    Execution,
    FailedSignIns,
    FreedNode,
    IdempotencyKey,
)
from orchestrator.worker import housekeeping
from tests import rows
from tests.interleave.holding import Held

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


def test_what_was_over_before_its_node_was_lost_is_not_read_again_each_second():
    node, job = rows.node(connection="lost"), rows.job()
    for slot in range(3):
        rows.execution(job, node, slot=slot, observed=Observed.COMPLETED)
    Execution.objects.update(settled=True, reserved=False)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        before = rows.executions_read()
        endpoint.lose_silent()
        assert rows.executions_read() == before


def test_a_node_that_says_hello_while_it_is_given_up_loses_nothing():
    node = rows.node(connection="lost")
    running = rows.execution(rows.job(), node, observed=Observed.RUNNING)
    give_up = Held(endpoint.lose_silent, at=1)  # It has seen that the node is lost.
    assert give_up.is_held()
    Node.objects.filter(pk=node.pk).update(connection="connected")
    give_up.finish()
    running.refresh_from_db()
    assert (give_up.error, running.observed) == (None, "running")


def test_a_node_that_is_heard_of_again_wakes_what_waits_for_it():
    node = rows.node(connection="disconnected")
    endpoint.reconnect({node.pk: 1})
    node.refresh_from_db()
    assert node.connection == "connected"
    assert FreedNode.objects.filter(node_id=node.pk).exists()
    assert Event.objects.get(node_id=node.pk).what == "connected"


def test_a_session_that_was_replaced_does_not_bring_its_node_back():
    node = rows.node(connection="disconnected")
    endpoint.reconnect({node.pk: 0})
    node.refresh_from_db()
    assert node.connection == "disconnected"
    assert not Event.objects.exists()


def test_a_node_that_recovers_wakes_what_waits_for_it():
    node = rows.node()
    endpoint.degraded({node.pk: (1, "its spawner does not answer")})
    node.refresh_from_db()
    assert node.degraded == "its spawner does not answer"
    assert not BrokerTrigger.objects.exists()
    assert not FreedNode.objects.exists()
    endpoint.degraded({node.pk: (0, "")})  # A session that was replaced.
    endpoint.degraded({node.pk: (1, "")})
    node.refresh_from_db()
    assert node.degraded == ""
    assert FreedNode.objects.filter(node_id=node.pk).exists()
    assert [it.message for it in Event.objects.filter(node_id=node.pk).order_by("pk")] == [
        f"{node.name} takes no new work: its spawner does not answer",
        f"{node.name} takes new work again",
    ]


def test_answers_are_kept_for_a_day():
    for name, age in (("old", 25), ("young", 23)):
        IdempotencyKey.objects.create(
            actor="a", key=name, request_digest="d", status=200, answer={}
        )
        IdempotencyKey.objects.filter(key=name).update(created_at=Now() - timedelta(hours=age))
    housekeeping.forget_answers()
    assert list(IdempotencyKey.objects.values_list("key", flat=True)) == ["young"]


def test_join_tokens_are_kept_for_a_month_after_their_end():
    for label, age in (("old", 31), ("young", 29)):
        ended = timezone.now() - timedelta(days=age)
        JoinToken.objects.create(label=label, digest=label, uses_left=0, expires_at=ended)
    housekeeping.forget_join_tokens()
    assert [it.label for it in JoinToken.objects.all()] == ["young"]


def test_what_is_swept_away_waits_for_nobody():
    for name in ("ana", "bo"):
        FailedSignIns.objects.create(door="password", name=name, address="10.0.0.1")
    FailedSignIns.objects.update(since=Now() - timedelta(days=1))
    with transaction.atomic():
        FailedSignIns.objects.select_for_update().get(name="ana")
        sweep = Held(sign_in.forget_old)
        sweep.finish()
    assert (sweep.error, [it.name for it in FailedSignIns.objects.all()]) == (None, ["ana"])
