"""What is over goes after a while; what lives, and what it needs, stays."""

import itertools
import random
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from dashboard.queries import jobs as pages
from nodes.models import Node
from nodes.protocol.resources import DIMENSIONS
from orchestrator import endpoint
from orchestrator.lifecycle import Desired, JobType, Observed, Trigger
from orchestrator.models import (
    Evaluation,
    Event,
    Execution,
    ExecutionHistory,
    ExecutionOutput,
    Job,
    JobVersion,
    RemovedHistory,
    SlotState,
)
from orchestrator.scheduling.slot_scheduler import schedule
from orchestrator.server import postgres
from orchestrator.worker import retention, snapshot
from orchestrator.worker.retention import Kept, Retention
from tests import rows
from tests.invariants import violations
from tests.sessions import open_transaction

pytestmark = pytest.mark.django_db(transaction=True)

AGED = {
    "orchestrator_job": ("created_at", "ended_at", "updated_at"),
    "orchestrator_execution": ("created_at", "started_at", "ended_at"),
    "orchestrator_executionhistory": ("at",),
    "orchestrator_evaluation": ("leased_at", "finished_at"),
}


def age(days):
    """Make all that there is so many days older."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET LOCAL session_replication_role = replica")
        for table, columns in AGED.items():
            older = ", ".join(f"{it} = {it} - interval '{days} days'" for it in columns)
            cursor.execute(f"UPDATE {table} SET {older}")


def kept(days=90, **others):
    return Kept.for_days(days, dict.fromkeys(JobType, days) | others)


def retain(days=90, **others):
    for _ in retention.delete_all(kept(days, **others), timezone.now()):
        pass


def settled(job, node, **differing):
    """An execution that has ended, been accounted for, and given its room back."""
    made = rows.execution(job, node, **{"observed": Observed.COMPLETED, **differing})
    ExecutionOutput.objects.create(execution=made, stdout="done")
    Execution.objects.filter(pk=made.pk).update(settled=True)
    free(made)
    return made


def free(execution):
    Execution.objects.filter(pk=execution.pk).update(reserved=False)
    less = {f"allocated_{it}": F(f"allocated_{it}") - getattr(execution, it) for it in DIMENSIONS}
    Node.objects.filter(pk=execution.node_id).update(**less)


def looked_at(job, number=1):
    for _ in range(number):
        Evaluation.objects.create(
            job=job, type=job.type, priority=50, state="complete", finished_at=Now()
        )


def ended(node, state="completed", kind="batch", **differing):
    job = rows.job(**differing)
    Job.objects.filter(pk=job.pk).update(type=kind)
    settled(job, node)
    looked_at(job, 2)
    SlotState.objects.create(job=job, slot=0)
    Job.objects.filter(pk=job.pk).update(state=state)
    return job


def left():
    return {
        it.__name__: it.objects.count()
        for it in (Job, JobVersion, SlotState, Evaluation, Execution, ExecutionOutput)
    }


def names():
    return sorted(Job.objects.values_list("name", flat=True))


def test_a_job_that_ended_long_ago_goes_with_all_that_belongs_to_it():
    node = rows.node()
    old = ended(node, name="old")
    age(60)
    ended(node, name="young")
    age(31)
    history = ExecutionHistory.objects.exclude(execution__job=old).count()
    retain()
    assert names() == ["young"]
    assert left() == {
        "Job": 1,
        "JobVersion": 1,
        "SlotState": 1,
        "Evaluation": 2,
        "Execution": 1,
        "ExecutionOutput": 1,
    }
    assert ExecutionHistory.objects.count() == history
    assert not RemovedHistory.objects.exists()


def test_a_name_is_free_when_its_job_is_gone():
    ended(rows.node(), name="again")
    age(91)
    retain()
    submitted = endpoint.submit(rows.job_spec(name="again"), actor="user:ana")
    assert (submitted.created, submitted.version) == (True, 1)


@pytest.mark.parametrize(
    ("days", "others", "stays"),
    [
        (90, {}, []),
        (0, {}, ["b", "s"]),
        (90, {"batch": 0}, ["b"]),
        (0, {"service": 30}, ["b"]),
        (120, {"batch": 100}, ["s"]),
    ],
)
def test_each_type_of_job_is_kept_as_long_as_was_said(days, others, stays):
    node = rows.node()
    ended(node, name="b")
    ended(node, "stopped", "service", name="s")
    age(110)
    retain(days, **others)
    assert names() == stays


def test_what_lives_stays_however_old_it_is():
    node = rows.node()
    running = rows.job(name="runs-for-a-year")
    rows.execution(running, node, observed=Observed.RUNNING)
    waiting = rows.job(name="waits-for-a-year")
    looked_at(waiting)
    lost = rows.job(name="may-still-run")
    rows.execution(lost, node, slot=0, observed=Observed.RUNNING)
    rows.lose(node)
    Execution.objects.filter(job=lost).update(settled=True)
    Job.objects.filter(pk=lost.pk).update(state="stopped")
    age(365)
    before = (names(), left(), ExecutionHistory.objects.count())
    retain()
    assert (names(), left(), ExecutionHistory.objects.count()) == before
    with connection.cursor() as cursor:
        assert violations(cursor) == []


def test_a_job_that_somebody_asks_for_again_stays():
    node = rows.node()
    again, asked = ended(node, name="again"), ended(node, name="asked")
    age(91)
    endpoint.rerun(again.pk, actor="user:ana")
    rows.broker.enqueue(asked.pk, Trigger.OPERATOR)
    retain()
    assert names() == ["again", "asked"]


def test_of_a_job_that_goes_on_only_what_is_over_goes_and_the_newest_of_each_slot_stays():
    node, job = rows.node(), rows.job(name="server", count=2)
    for slot in (0, 0, 0, 1):
        settled(job, node, slot=slot, observed=Observed.FAILED)
    looked_at(job, 3)
    age(60)
    recent = settled(job, node, slot=1, observed=Observed.FAILED)
    looked_at(job)
    age(31)
    newest = Execution.objects.filter(job=job, slot=0).latest("created_at")
    retain()
    assert set(Execution.objects.values_list("pk", flat=True)) == {newest.pk, recent.pk}
    assert Evaluation.objects.count() == 1
    gone = RemovedHistory.objects.get(job=job)
    assert (gone.executions, gone.evaluations) == (3, 3)
    assert timedelta(days=89) < timezone.now() - gone.ended_before < timedelta(days=91)
    age(91)
    settled(job, node, slot=0)
    retain()
    gone.refresh_from_db()
    assert (gone.executions, gone.evaluations) == (4, 3)
    Job.objects.filter(pk=job.pk).update(state="stopped")
    age(91)
    retain()
    assert (names(), RemovedHistory.objects.count()) == ([], 0)


def decided(job):
    """What a scheduler would do about *job*, and which of its world it has seen."""
    [world] = snapshot.worlds([SimpleNamespace(job=job.pk)], snapshot.ClusterView().refresh())
    world = replace(world, now=job.created_at + timedelta(days=200))
    return world.job, world.executions, schedule(world)


def end(execution, how):
    """Have it end, and give its room back."""
    rows.move(execution, how)
    free(execution)


ENDS = (Observed.COMPLETED, Observed.FAILED, Observed.FAILED)
KINDS = (
    {"count": 4, "retry": {"attempts": 20}},
    {"count": 3, "retry": {"attempts": 100}},
    {"count": 120, "retry": {"attempts": 50}},
    {"count": 3, "ask": 2},
)


@pytest.mark.parametrize("seed", range(8))
def test_a_job_that_has_not_ended_is_decided_as_before(seed, evaluator):
    """However it came to be as it is: slots that completed, failed, wait, run or were lost."""
    chance = random.Random(seed)
    for _ in range(3):
        rows.node(cpu=12_000, memory=64 * 2**30)
    job = rows.submitted(**KINDS[seed % len(KINDS)])
    for _ in range(6):
        evaluator.pull()
        for it in Execution.objects.filter(job=job, ended_at=None).exclude(desired="stopped"):
            bids = it.desired == Desired.PENDING
            rows.move(it, Observed.ASK_FOR_BID_ACCEPTED if bids else Observed.RUNNING)
        running = list(Execution.objects.filter(job=job, observed="running", desired="running"))
        for it in chance.sample(running, len(running) // 2):
            end(it, chance.choice(ENDS))
        SlotState.objects.update(retry_at=None)
        rows.broker.enqueue(job.pk, Trigger.OPERATOR)
    evaluator.pull()
    job.refresh_from_db()
    age(91)
    job.refresh_from_db()
    before, slots = decided(job), pages.slots(job)
    number = Execution.objects.count()
    retain()
    assert Execution.objects.count() < number
    assert decided(job) == before
    assert pages.slots(job) == slots
    with connection.cursor() as cursor:
        assert violations(cursor) == []


def many(job, node, number):
    """So many executions that are over, with a history of one row, past all triggers."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            "WITH made AS (INSERT INTO orchestrator_execution (id, job_id, node_id, version, round,"
            " slot, attempt, desired, observed, rev, order_rev, told_rev, cpu, memory, disk, gpu,"
            " reserved, settled, ended_at, code, message, hint, retryable)"
            " SELECT gen_random_uuid(), %s, %s, 1, 1, n, 1, 'stopped', 'completed', 1, 1, 1,"
            " 0, 0, 0, 0, false, true, now(), '', '', '', true"
            " FROM generate_series(1, %s) n RETURNING id)"
            " INSERT INTO orchestrator_executionhistory"
            " (execution_id, rev, lane, before, after, writer, actor, reason, at)"
            " SELECT id, 1, 'observed', '', 'completed', 'endpoint', '', '', now() FROM made",
            [job.pk, node.pk, number],
        )


def test_a_large_job_goes_in_small_transactions_and_all_of_it_in_the_end(monkeypatch):
    monkeypatch.setattr(retention, "ROWS", 10)
    node = rows.node()
    job = ended(node, name="large")
    many(job, node, 25)
    age(91)
    steps = retention.delete_all(kept(), timezone.now())
    sizes = [Execution.objects.count() for _ in steps]
    assert max(before - after for before, after in itertools.pairwise(sizes)) == retention.ROWS
    assert set(left().values()) == {0}
    assert not ExecutionHistory.objects.exists()


def test_two_processes_at_once_delete_each_row_once_and_wait_for_nobody(in_threads):
    node = rows.node()
    for number in range(30):
        ended(node, name=f"over-{number}")
    going_on = rows.job(name="going-on")
    for _ in range(5):
        settled(going_on, node)
    looked_at(going_on, 5)
    age(91)
    assert in_threads(*[retain] * 4) == []
    retain()
    assert names() == ["going-on"]
    gone = RemovedHistory.objects.get()
    assert (gone.executions, gone.evaluations) == (4, 4)


def test_what_somebody_holds_is_passed_over_and_goes_the_next_time():
    node = rows.node()
    held, _ = ended(node, name="held"), ended(node, name="other")
    age(91)
    with open_transaction(lambda: Job.objects.select_for_update().get(pk=held.pk)):
        retain()
        assert names() == ["held"]
    retain()
    assert names() == []


def test_the_chores_leave_nothing_of_what_is_over():
    ended(rows.node(), name="old")
    age(91)
    Event.objects.create(topic="job", what="old", at=timezone.now() - timedelta(days=120))
    Event.objects.create(topic="job", what="young", at=timezone.now() - timedelta(days=60))
    chores = Retention(kept())
    chores.turn_weeks()
    while names():
        chores.delete_some()
    assert [it.what for it in Event.objects.all()] == ["young"]
    for_ever = Retention(kept(0))
    for_ever.turn_weeks()
    for_ever.delete_some()


def test_when_all_has_been_looked_at_the_chores_rest(django_assert_max_num_queries):
    rows.job()
    chores = Retention(kept())
    with django_assert_max_num_queries(6):
        chores.delete_some()
    with django_assert_max_num_queries(0):
        chores.delete_some()


def test_weeks_that_cannot_be_turned_now_are_turned_later():
    Event.objects.create(topic="job", what="old", at=timezone.now() - timedelta(days=120))
    chores = Retention(kept())
    with open_transaction(lambda: list(Event.objects.all())):
        chores.turn_weeks()
        assert Event.objects.count() == 1
    chores.turn_weeks()
    assert Event.objects.count() == 0


@pytest.fixture
def as_application():
    """Be who web and workers are."""
    if connection.settings_dict["USER"] != postgres.OWNER:
        pytest.skip("the server of DATABASE_URL has one role")
    with connection.cursor() as cursor:
        yield lambda: cursor.execute(f"SET ROLE {postgres.APPLICATION}")
        cursor.execute("RESET ROLE")


def test_the_role_of_the_workers_may_do_all_of_it(as_application):
    node = rows.node()
    ended(node, name="old")
    for name in ("one", "other"):
        settled(rows.job(name=name), node)
    age(91)
    Event.objects.create(topic="job", what="old", at=timezone.now() - timedelta(days=120))
    as_application()
    chores = Retention(kept())
    chores.turn_weeks()
    retain()
    assert (len(names()), Event.objects.count()) == (2, 0)


def test_nobody_has_history_forgotten_of_executions_that_are_there_or_were_this_week():
    node = rows.node()
    old, young = settled(rows.job(), node), settled(rows.job(), node)
    forget = "SELECT orchestrator_forget_history(%s)"
    with connection.cursor() as cursor:
        age(8)
        with pytest.raises(IntegrityError, match="as long as there is its execution"):
            cursor.execute(forget, [[old.pk]])
        cursor.execute("DELETE FROM orchestrator_executionoutput")
        cursor.execute("DELETE FROM orchestrator_execution")
        cursor.execute("SET session_replication_role = replica")
        ExecutionHistory.objects.filter(execution=young).update(at=timezone.now())
        cursor.execute("SET session_replication_role = origin")
        cursor.execute(forget, [[old.pk, young.pk]])
    assert set(ExecutionHistory.objects.values_list("execution_id", flat=True)) == {young.pk}
