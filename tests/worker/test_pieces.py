"""Plans that are written in pieces, and what goes wrong between two of them."""

import pytest
from django.db import IntegrityError, OperationalError, connection
from django.db.models import F

from nodes.models import Node
from orchestrator import broker, endpoint
from orchestrator.lifecycle import Desired, Observed, Trigger
from orchestrator.models import BrokerRow, Evaluation, Execution, SlotState
from orchestrator.planners import state_updater
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(state_updater, "MOST_PLACED", 20)
    rows.node(cpu=100_000, memory=64 * 2**40)


class Before:
    """Does something once, before the *number*-th statement that has *what* in it."""

    def __init__(self, number, what, do):
        self.left, self.what, self.do = number, what, do

    def __call__(self, execute, sql, parameters, many, context):
        if self.what in sql:
            self.left -= 1
            if self.left == 0:
                self.do()
        return execute(sql, parameters, many, context)


def deadlock():
    raise OperationalError("deadlock detected")


EXECUTION = "orchestrator_execution"
INSERT = f"INSERT INTO {EXECUTION} ("
LOCK_JOBS = "SELECT id, name, intent_rev"


@pytest.mark.parametrize("approval", ["bid", "none"])
def test_what_was_placed_in_a_piece_is_not_placed_again_when_the_next_one_is_tried_again(
    evaluator, approval
):
    job = rows.submitted(count=50, approval=approval)
    with connection.execute_wrapper(Before(2, INSERT, deadlock)):
        evaluator.pull()
    slots = Execution.objects.filter(job=job).values_list("slot", flat=True)
    assert sorted(slots) == sorted(set(slots))
    assert not Evaluation.objects.filter(job=job, state="failed").exists()


def test_what_was_placed_in_a_piece_is_not_placed_again_when_the_group_is_written_one_by_one(
    evaluator,
):
    small, large = rows.submitted(priority=60), rows.submitted(count=25, priority=50)
    with connection.execute_wrapper(Before(2, INSERT, deadlock)):
        evaluator.pull()
    assert Execution.objects.filter(job=small).count() == 1
    slots = Execution.objects.filter(job=large).values_list("slot", flat=True)
    assert sorted(slots) == sorted(set(slots))


def test_the_pieces_of_a_job_take_nothing_from_one_that_comes_before_it(evaluator, in_threads):
    def leave(cpu):
        Node.objects.update(allocated_cpu=F("capacity_cpu") - cpu)

    leave(2600)
    first, _ = rows.submitted(priority=60), rows.submitted(count=25, priority=50)
    less = Before(1, LOCK_JOBS, lambda: in_threads(lambda: leave(1900)))
    with connection.execute_wrapper(less):
        evaluator.pull()
    assert Execution.objects.filter(job=first).exists()


def test_an_attempt_that_ran_too_long_counts_also_when_the_job_changes_between_two_pieces(
    evaluator, in_threads
):
    said = {"name": "long", "count": 50, "timeouts": {"execution": 10}}
    job = endpoint.submit(rows.job_spec(**said), actor="user:a").job
    late = rows.execution(job, rows.node(), observed=Observed.RUNNING)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE orchestrator_execution DISABLE TRIGGER USER")
        cursor.execute(f"UPDATE {EXECUTION} SET started_at = now() - interval '1 day'")
        cursor.execute("ALTER TABLE orchestrator_execution ENABLE TRIGGER USER")

    def change():
        other = rows.job_spec(**said, priority=60)
        assert in_threads(lambda: endpoint.submit(other, actor="user:a")) == []

    with connection.execute_wrapper(Before(2, LOCK_JOBS, change)):
        evaluator.pull()
    late.refresh_from_db()
    assert (late.desired, late.stop_cause) == (Desired.STOPPED, "overran")
    assert SlotState.objects.get(job=job, slot=0).failed_attempts == 1


@pytest.mark.parametrize("approval", ["bid", "none"])
def test_a_slot_whose_place_was_taken_meanwhile_has_waited_all_along(
    evaluator, in_threads, approval
):
    Node.objects.update(allocated_cpu=F("capacity_cpu"))
    job = rows.submitted(approval=approval, timeouts={"queue": 600})
    evaluator.pull()
    job.refresh_from_db()
    since = job.progress["waits"]
    Node.objects.update(allocated_cpu=0)
    broker.enqueue(job.pk, Trigger.OPERATOR)

    def fill():
        full = F("capacity_cpu")
        assert in_threads(lambda: Node.objects.update(allocated_cpu=full)) == []

    with connection.execute_wrapper(Before(1, LOCK_JOBS, fill)):
        evaluator.pull()
    job.refresh_from_db()
    assert not Execution.objects.exists()
    assert job.progress["waits"] == since


def test_a_job_whose_pieces_cannot_be_written_is_given_back_with_the_reason(evaluator):
    small, large = rows.submitted(priority=60), rows.submitted(count=50, priority=50)

    def refuse(execute, sql, parameters, many, context):
        if INSERT in sql and Execution.objects.filter(job=large).exists():
            raise IntegrityError("refused")
        return execute(sql, parameters, many, context)

    with connection.execute_wrapper(refuse):
        evaluator.pull(1)
    assert Execution.objects.filter(job=small).count() == 1
    assert Execution.objects.filter(job=large).count() == 20
    assert Evaluation.objects.filter(job=large, state="failed").exists()


def in_each_transaction():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM orchestrator_execution GROUP BY xmin::text")
        return sorted(number for (number,) in cursor.fetchall())


def test_what_is_placed_is_placed_in_pieces(evaluator):
    jobs = [rows.submitted(count=count) for count in (50, 8, 8, 8)]
    assert evaluator.pull() == 4
    assert in_each_transaction() == [16, 18, 20, 20]
    assert [Execution.objects.filter(job=job).count() for job in jobs] == [50, 8, 8, 8]
    assert not BrokerRow.objects.exists()


def test_a_job_that_changes_between_two_pieces_is_evaluated_anew(evaluator, in_threads):
    job = endpoint.submit(rows.job_spec(count=50), actor="user:a").job
    inserted = []

    def scale_before_the_second(execute, sql, parameters, many, context):
        if inserted and not job.stop_requested and "FOR NO KEY UPDATE" in sql:
            job.stop_requested = True
            assert in_threads(lambda: endpoint.stop(job.pk, actor="user:a")) == []
        if sql.lstrip().startswith("INSERT INTO orchestrator_execution "):
            inserted.append(sql)
        return execute(sql, parameters, many, context)

    [lease] = broker.lease(None, 1, evaluator.name)
    with connection.execute_wrapper(scale_before_the_second):
        evaluator._evaluate([lease])
    assert Execution.objects.filter(job=job).count() == 20
    assert "thrown away" in Evaluation.objects.get(pk=lease.evaluation).outcome
    evaluator.pull()
    assert not Execution.objects.exclude(desired="stopped").exists()


def test_a_large_plan_is_not_given_back_for_the_fault_of_another(evaluator):
    large, guilty = rows.submitted(count=25, priority=60), rows.submitted(priority=50)

    def refuse(execute, sql, parameters, many, context):
        if INSERT in sql and any(guilty.pk in it for it in parameters if isinstance(it, list)):
            raise IntegrityError("refused")
        return execute(sql, parameters, many, context)

    with connection.execute_wrapper(refuse):
        evaluator.pull(1)
    assert Evaluation.objects.filter(job=guilty, state="failed").exists()
    assert not Evaluation.objects.filter(job=large, state="failed").exists()


def test_a_large_plan_that_the_database_never_takes_is_not_tried_without_a_pause(evaluator):
    job = rows.submitted(count=50)

    def refuse(execute, sql, parameters, many, context):
        if INSERT in sql:
            raise OperationalError("canceling statement due to statement timeout")
        return execute(sql, parameters, many, context)

    with connection.execute_wrapper(refuse):
        evaluator.pull(2)
    assert Evaluation.objects.filter(job=job).count() <= 3


def test_what_the_database_refused_is_not_said_to_have_changed(evaluator):
    job, left = rows.submitted(count=50), [1]

    def refuse(execute, sql, parameters, many, context):
        if INSERT in sql and left:
            left.pop()
            raise OperationalError("deadlock detected")
        return execute(sql, parameters, many, context)

    with connection.execute_wrapper(refuse):
        evaluator.pull(1)
    first = Evaluation.objects.filter(job=job).earliest("pk")
    assert "the job changed" not in first.outcome


@pytest.mark.parametrize("approval", ["bid", "none"])
def test_a_piece_is_not_placed_again_when_the_answer_to_its_commit_was_lost(
    evaluator, monkeypatch, approval
):
    job, commit, inserted = rows.submitted(count=50, approval=approval), connection._commit, []

    def commit_and_break():
        commit()
        if len(inserted) == 1:
            inserted.append("answered")
            connection.connection.close()
            raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(connection, "_commit", commit_and_break)
    with connection.execute_wrapper(Before(1, INSERT, lambda: inserted.append("first"))):
        evaluator.pull()
    assert len(inserted) == 2
    slots = Execution.objects.filter(job=job).values_list("slot", flat=True)
    assert sorted(slots) == sorted(set(slots))
    assert not Evaluation.objects.filter(job=job, error__contains="duplicate key").exists()
