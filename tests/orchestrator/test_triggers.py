"""What the database refuses, whoever writes."""

import pytest
from django.db import IntegrityError, transaction

from orchestrator.lifecycle import Desired, Observed
from orchestrator.models import Execution, ExecutionHistory
from tests import rows

pytestmark = pytest.mark.django_db


@pytest.fixture
def execution():
    return rows.execution(rows.job(), rows.node())


def update(execution, **columns):
    with transaction.atomic():
        return Execution.objects.filter(pk=execution.pk).update(**columns)


def history(execution):
    return list(
        ExecutionHistory.objects.filter(execution=execution)
        .order_by("rev", "lane")
        .values_list("rev", "lane", "before", "after", "writer")
    )


def test_a_new_execution_has_its_first_two_lines_of_history(execution):
    assert history(execution) == [
        (1, "desired", "", "pending", "state-updater"),
        (1, "observed", "", "new", "state-updater"),
    ]


def test_a_change_that_does_not_say_who_makes_it_is_refused(execution):
    with pytest.raises(IntegrityError, match="must say who makes it"):
        update(execution, observed="ask_for_bid")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"observed": "completed", "by_writer": "endpoint"}, "cannot go from new to completed"),
        ({"observed": "ask_for_bid", "by_writer": "endpoint"}, "by the endpoint"),
        ({"desired": "running", "by_writer": "endpoint"}, "desired cannot go"),
    ],
)
def test_an_illegal_move_is_refused(execution, columns, sentence):
    with pytest.raises(IntegrityError, match=sentence):
        update(execution, **columns)


def test_the_end_closes_the_desired_lane_in_the_same_revision(execution):
    rows.move(execution, Observed.COMPLETED)
    last = [line for line in history(execution) if line[0] == execution.rev]
    assert last == [
        (execution.rev, "desired", "running", "stopped", "endpoint"),
        (execution.rev, "observed", "running", "completed", "endpoint"),
    ]
    assert (execution.desired, execution.ended_at is not None) == ("stopped", True)


def test_what_has_ended_stays_as_it_is(execution):
    rows.move(execution, Observed.COMPLETED)
    for after in ("running", "failed", "lost"):
        with pytest.raises(IntegrityError):
            update(execution, observed=after, by_writer="endpoint")


def test_desired_does_not_go_back(execution):
    rows.wish(execution, Desired.STOPPED)
    with pytest.raises(IntegrityError, match="desired cannot go"):
        update(execution, desired="running", by_writer="state-updater")


def test_revisions_have_no_gap_and_writers_leave_nothing_behind(execution):
    rows.move(execution, Observed.RUNNING)
    revisions = sorted({rev for rev, *_ in history(execution)})
    assert revisions == list(range(1, execution.rev + 1))
    assert (execution.by_writer, execution.by_actor, execution.by_reason) == (None, None, None)


def test_only_the_state_updater_creates_executions():
    with (
        pytest.raises(IntegrityError, match="only the state-updater creates"),
        transaction.atomic(),
    ):
        Execution.objects.create(
            job=rows.job(), node=rows.node(), version=1, slot=0, order_rev=1, by_writer="endpoint"
        )


def test_a_slot_has_one_wanted_execution():
    job, node = rows.job(), rows.node()
    rows.execution(job, node, observed=Observed.RUNNING)
    with pytest.raises(IntegrityError, match="one_wanted_execution_per_slot"), transaction.atomic():
        rows.execution(job, node, observed=Observed.RUNNING)


def test_a_node_cannot_be_overcommitted():
    node = rows.node(cpu=100)
    with pytest.raises(IntegrityError, match="node_cpu_is_not_overcommitted"), transaction.atomic():
        type(node).objects.filter(pk=node.pk).update(allocated_cpu=101)


def test_a_job_cannot_leave_its_end_but_by_renewal():
    job = rows.job()
    type(job).objects.filter(pk=job.pk).update(state="completed")
    with pytest.raises(IntegrityError, match="state cannot go from completed to running"):
        with transaction.atomic():
            type(job).objects.filter(pk=job.pk).update(state="running")
    type(job).objects.filter(pk=job.pk).update(state="pending")
    job.refresh_from_db()
    assert job.ended_at is None
