"""A worker: what it leases it evaluates, and what goes wrong with one job harms no other."""

import threading

import pytest
from django.db import connection
from django.db.models.functions import Now

from nodes.callbacks import Inbound
from nodes.protocol.messages import Happened, Report
from orchestrator import broker, endpoint, worker
from orchestrator.broker.leases import LEASE
from orchestrator.models import (
    BlockedJob,
    BrokerDue,
    BrokerRow,
    Evaluation,
    Execution,
    Job,
    WorkerProcess,
)
from orchestrator.worker.worker_id import WorkerId
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_pull_evaluates_until_nothing_is_ready(evaluator):
    rows.node(cpu=100_000, memory=64 * 2**40)
    jobs = [rows.submitted() for _ in range(30)]
    assert evaluator.pull() >= 30
    assert Execution.objects.filter(job__in=jobs).count() == 30
    assert not BrokerRow.objects.exists()
    assert evaluator.pull() == 0


def test_plans_of_one_group_share_what_is_left(evaluator):
    rows.node(cpu=250)
    jobs = [rows.submitted(priority=priority) for priority in (20, 30, 10)]
    assert evaluator.pull() == 3
    placed = Execution.objects.values_list("job__priority", flat=True)
    assert sorted(placed) == [20, 30]
    assert broker.stats().blocked == 1
    assert BlockedJob.objects.get().job_id == jobs[2].pk


def test_a_job_that_cannot_be_read_is_given_back_alone(evaluator):
    rows.node()
    healthy, poisoned = rows.submitted(), rows.submitted()
    rows.version(poisoned, {"nonsense": True})
    evaluator.pull()
    assert Execution.objects.get().job_id == healthy.pk
    failed = Evaluation.objects.get(job=poisoned)
    assert failed.state == "failed"
    assert failed.error
    assert broker.stats().waiting == 1


def test_a_node_that_does_not_wait_for_approvals_is_kept_away_from(evaluator):
    eager, other = rows.node(cpu=1000), rows.node(cpu=4000)
    job = rows.submitted()
    asked = rows.execution(job, eager, observed="ask_for_bid")
    report = Report(execution=str(asked.pk), happened=Happened.START)
    endpoint.receive([Inbound(eager.pk, 1, 1, 0, (), (report,))])
    evaluator.pull()
    assert Execution.objects.exclude(pk=asked.pk).get().node_id == other.pk
    job.refresh_from_db()
    assert list(job.progress["bad_nodes"]) == [str(eager.pk)]


@pytest.fixture
def breakage():
    """Rules of the database that a test adds, and that do not outlive it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'this one breaks'; END $$"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION broken CASCADE")


def test_a_plan_that_cannot_be_written_is_given_back_alone(evaluator, breakage):
    rows.node()
    jobs = [rows.submitted() for _ in range(4)]
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON orchestrator_execution FOR EACH ROW"
            f" WHEN (NEW.job_id = '{jobs[1].pk}') EXECUTE FUNCTION broken()"
        )
    evaluator.pull()
    assert {e.job_id for e in Execution.objects.all()} == {
        job.pk for job in jobs if job is not jobs[1]
    }
    assert "this one breaks" in Evaluation.objects.get(job=jobs[1]).error


def test_a_job_of_a_type_nobody_decides_about_is_parked_not_lost(evaluator):
    poisoned = rows.submitted()
    rows.version(poisoned, {})
    for _ in range(5):
        BrokerRow.objects.update(retry_at=None)
        BrokerDue.objects.update(at=Now())
        evaluator.pull()
    assert broker.stats().dead == 1
    assert broker.in_state(broker.QueueState.DEAD, 10) == [poisoned.pk]


def test_a_job_deleted_meanwhile_is_nobodys_business(evaluator):
    rows.submitted()
    Job.objects.all().delete()
    assert evaluator.pull() == 0


def test_a_lost_connection_costs_a_delivery_and_no_evaluation(evaluator, caplog, eventually):
    rows.node()
    job, before = rows.submitted(), evaluator.name
    evaluator.pull(0)
    leased = broker.lease(None, 1, before)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (mine,) = cursor.fetchone()
    _elsewhere(lambda: _terminate(mine))
    assert evaluator.pull() == 0
    assert "the database does not answer" in caplog.text
    assert evaluator.name != before
    evaluator.heartbeat.start()
    assert eventually(evaluator.pull) == 1
    assert Execution.objects.get().job_id == job.pk
    assert Evaluation.objects.get(pk=leased[0].evaluation).state == "failed"


def _terminate(pid):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def _elsewhere(what):
    def run():
        try:
            what()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)


class TestPulse:
    def test_a_worker_says_that_it_lives_and_that_it_goes(self, evaluator, eventually):
        evaluator.heartbeat.start()
        assert eventually(lambda: WorkerProcess.objects.filter(seen_at__lte=Now()).exists())
        row = WorkerProcess.objects.get()
        assert (row.name, row.pid) == (evaluator.name, WorkerId.mine().pid)
        evaluator.heartbeat.end()
        assert not WorkerProcess.objects.exists()

    def test_leases_are_renewed_while_work_goes_on(self, evaluator):
        rows.submitted()
        leases = broker.lease(None, 1, evaluator.name, lease_seconds=5)
        with evaluator.heartbeat.holding(leases):
            evaluator.heartbeat._renewed_at -= LEASE / 3 + 1
            evaluator.heartbeat._beat()
        remaining = BrokerRow.objects.get().leased_until - BrokerRow.objects.get().leased_at
        assert remaining.total_seconds() > LEASE / 2

    def test_the_dead_are_buried(self):
        job = rows.submitted()
        mine = WorkerId.mine()
        dead = WorkerId(mine.host, 2**22 - 1, 1, mine.space, "x").name
        broker.lease(None, 1, dead)
        WorkerProcess.objects.create(name=dead, host=mine.host, pid=2**22 - 1)
        worker.release_leases_of_dead_workers()
        worker.delete_dead_workers()
        assert not WorkerProcess.objects.exists()
        assert broker.lease(None, 1, "w")[0].job == job.pk
