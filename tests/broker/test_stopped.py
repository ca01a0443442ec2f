"""A process that is stopped in the middle of a transaction keeps its locks; the others go on.

The process is a connection that holds what it has and does nothing.  Ours waits for no lock
longer than a second: it fails where it would depend on what the other holds.
"""

import re
from contextlib import contextmanager

import psycopg
import pytest
from django.db import connection, transaction
from django.utils import timezone

from nodes.hints import address
from nodes.protocol.resources import Resources
from orchestrator import broker
from orchestrator.broker.blocked import LOCK
from orchestrator.explain.reasons import NoRoom
from orchestrator.lifecycle import Trigger
from orchestrator.models import BrokerTrigger, FreedNode
from orchestrator.scheduling.plan import Blocked
from orchestrator.server.cluster.evaluation_broker import PATIENCE, EvaluationBroker
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)

BLOCKED = Blocked(Resources(cpu=1000), 1, NoRoom(1))
ALL_SEEN = f"{2**62 + 3}:{2**62 + 3}:"


@contextmanager
def stopped(*statements):
    """Somebody who has said *statements* in a transaction and says nothing more."""
    with psycopg.connect(**address()) as other:
        for statement, parameters in statements:
            other.execute(statement, parameters)
        yield
        other.rollback()


@pytest.fixture(autouse=True)
def _impatient():
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '1s'")
    yield
    connection.close()


@contextmanager
def waits():
    """For how many milliseconds each lock is waited for that a limit of its own is set for."""
    found = []

    def note(execute, sql, *rest):
        if limit := re.match(r"SET LOCAL lock_timeout = (\d+)", sql):
            found.append(int(limit[1]))
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        yield found


def shared():
    return "SELECT pg_advisory_xact_lock_shared(%s)", [LOCK]


def alone():
    return "SELECT pg_advisory_xact_lock(%s)", [LOCK]


def row_of(job):
    return "SELECT FROM orchestrator_brokerrow WHERE job_id = %s FOR UPDATE", [job.pk]


def test_who_is_about_to_block_a_job_keeps_nobody_from_theirs(queue):
    blocked = queue.job()
    queue.settle(queue.one(), blocked=BLOCKED, revision=ALL_SEEN)
    broker.capacity_freed([rows.node().pk])
    pusher = EvaluationBroker()
    with stopped(shared()), waits() as waited:
        job = queue.job()
        ((_, ticket),) = pusher.dequeue()
        assert ticket
        pusher.close()
        assert waited == [1000 * PATIENCE]
        assert queue.one().job == job.pk
        assert waited == [1000 * PATIENCE], "only the pusher waits, and seldom"
        assert FreedNode.objects.count() == 1, "its note is kept"
    assert queue.one().job == blocked.pk


def test_who_wakes_blocked_jobs_keeps_nobody_from_writing_plans(queue):
    job, other = queue.jobs(2)
    leases = {one.job: one for one in queue.lease()}
    with stopped(alone()):
        queue.settle(leases[job.pk], blocked=BLOCKED, revision=ALL_SEEN)
        queue.settle(leases[other.pk])
    assert queue.stands(job).state == "waiting"
    queue.let_time_pass()
    assert [one.job for one in queue.lease()] == [job.pk], "it is looked at again soon"


def test_rows_that_somebody_holds_are_passed_over(queue):
    held, due = queue.jobs(2)
    for lease in queue.lease():
        broker.nack(lease, "it failed")
    queue.let_time_pass()
    ready = queue.job(90)
    with stopped(row_of(held), ("SELECT FROM orchestrator_brokerdue FOR UPDATE", [])):
        broker.enqueue(held.pk, Trigger.EXECUTION_UPDATE)
        assert queue.one().job == ready.pk
        broker.sweep()
    queue.let_time_pass()
    assert {queue.one().job, queue.one().job} == {held.pk, due.pk}


def test_a_thousand_triggers_of_a_job_that_is_held_do_not_hide_a_new_one(queue):
    held = queue.job()
    queue.one()
    with stopped(row_of(held)):
        for _ in range(1100):
            broker.enqueue(held.pk, Trigger.EXECUTION_UPDATE)
        new = queue.job()
        assert queue.one().job == new.pk


def test_triggers_that_somebody_takes_are_neither_waited_for_nor_in_the_way(queue):
    taken = queue.job()
    with stopped(("SELECT FROM orchestrator_brokertrigger FOR UPDATE", [])):
        broker.forget_orphans()
        job = queue.job()
        assert queue.one().job == job.pk
    assert queue.one().job == taken.pk


def test_who_wakes_a_job_keeps_nobody_from_looking_at_it(queue):
    job = queue.job()
    queue.settle(queue.one(), blocked=BLOCKED, revision=ALL_SEEN)
    with stopped(("DELETE FROM orchestrator_blockedjob", [])):
        broker.enqueue(job.pk, Trigger.JOB_UPDATE)
        queue.settle(queue.one())


def test_what_people_write_about_a_job_keeps_its_evaluation_from_nothing(queue):
    job = queue.job()
    with stopped(("SELECT FROM orchestrator_job WHERE id = %s FOR NO KEY UPDATE", [job.pk])):
        lease = queue.one()
        with transaction.atomic():
            assert broker.hold([lease]) == {lease}
        assert broker.nack(lease, "tried")


def test_who_blocks_a_job_keeps_nobody_from_blocking_another_of_its_class(queue):
    first, second, third = queue.jobs(3)
    leases = {one.job: one for one in queue.lease()}
    queue.settle(leases[first.pk], blocked=BLOCKED, revision=ALL_SEEN)
    another = Blocked(Resources(cpu=1000), 1, NoRoom(2))
    with stopped(("SELECT FROM orchestrator_blockedclass FOR UPDATE", [])):
        broker.forget_classes()
        queue.settle(leases[second.pk], blocked=BLOCKED, revision=ALL_SEEN)
        queue.settle(leases[third.pk], blocked=another, revision=ALL_SEEN)
    assert {queue.stands(it).state for it in (first, second, third)} == {"blocked"}


@pytest.mark.parametrize("go_on", [broker.catch_up, broker.unblock_overlooked])
def test_what_takes_rows_that_a_plan_may_want_is_in_no_transaction(queue, go_on):
    """Between its last statement and the commit a process might be stopped."""
    rows.node()
    queue.job()
    queue.settle(queue.one(), blocked=BLOCKED, revision=ALL_SEEN)
    rows.due(rows.job(), timezone.now())
    inside = []

    def note(execute, sql, *rest):
        inside.append(connection.in_atomic_block)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        go_on()
    assert BrokerTrigger.objects.count() == 1
    assert not any(inside)
