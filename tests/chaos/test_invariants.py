"""The audit can fail: each forged wrong is found, and named."""

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now

from orchestrator.lifecycle import Desired
from orchestrator.models import Evaluation, Execution, Job
from tests import rows
from tests.invariants import violations, violations_of_proofs, violations_when_quiet

pytestmark = pytest.mark.django_db


@pytest.fixture
def cursor():
    with connection.cursor() as opened:
        yield opened


@pytest.fixture
def completed():
    """The one execution of a completed job."""
    it = rows.execution(rows.job(), rows.node(), observed="completed")
    Execution.objects.filter(pk=it.pk).update(reserved=False)
    with connection.cursor() as by_hand:
        by_hand.execute("UPDATE nodes_node SET allocated_cpu = 0, allocated_memory = 0")
    Job.objects.update(state="completed")
    return it


def untriggered(statement, *values):
    """Write what no trigger would allow."""
    with connection.cursor() as by_hand:
        by_hand.execute("SET LOCAL session_replication_role = replica")
        by_hand.execute(statement, values)
        by_hand.execute("SET LOCAL session_replication_role = origin")


def test_an_orderly_history_has_no_violations(cursor, completed):
    assert violations(cursor) == []


def test_resources_that_nobody_holds(cursor, completed):
    cursor.execute("UPDATE nodes_node SET allocated_cpu = 100")
    assert len(violations(cursor)) == 1
    assert "allocated is the sum of what is reserved" in violations(cursor)[0]


def test_a_slot_that_completed_twice(cursor, completed):
    again = rows.execution(completed.job, completed.node, observed="completed", attempt=2)
    Execution.objects.filter(pk=again.pk).update(reserved=False)
    cursor.execute("UPDATE nodes_node SET allocated_cpu = 0, allocated_memory = 0")
    (found,) = violations(cursor)
    assert "each slot completed once" in found


def test_a_revision_that_is_missing(cursor, completed):
    untriggered(
        "DELETE FROM orchestrator_executionhistory WHERE lane = 'observed' AND after = 'running'"
    )
    assert any("every revision" in it for it in violations(cursor))
    assert any("where the last one ended" in it for it in violations(cursor))


def test_a_move_that_is_illegal(cursor, completed):
    untriggered(
        "UPDATE orchestrator_executionhistory SET writer = 'endpoint' WHERE after = 'bid_accepted'"
    )
    (found,) = violations(cursor)
    assert found == "observed new bid_accepted endpoint is no legal move"


@pytest.mark.parametrize(
    "forged",
    [
        "UPDATE orchestrator_executionhistory SET writer = 'compute-forwarder'"
        " WHERE lane = 'desired' AND after = 'stopped'",
        "UPDATE orchestrator_executionhistory SET rev = rev - 1"
        " WHERE lane = 'desired' AND after = 'stopped'",
        "UPDATE orchestrator_executionhistory SET after = 'publishing' WHERE after = 'completed'",
    ],
    ids=["by another than who ended it", "before it ended", "without an end"],
)
def test_a_desired_lane_that_nobody_had_a_right_to_close(cursor, completed, forged):
    untriggered(forged)
    assert any(
        it.startswith("desired running stopped") and "no legal move" in it
        for it in violations(cursor)
    )


def test_a_slot_that_asks_more_nodes_than_its_job_says(cursor):
    job = rows.job(ask=2)
    rule = "one approved execution a slot"
    for _ in range(2):
        rows.execution(job, rows.node(), observed="ask_for_bid")
    assert violations(cursor) == []
    third = rows.execution(job, rows.node(), observed="ask_for_bid_accepted")
    assert [rule in it for it in violations(cursor)] == [True]
    rows.wish(third, Desired.STOPPED)
    assert violations(cursor) == []


def test_a_slot_that_runs_and_asks_still(cursor):
    job = rows.job(ask=2)
    rows.execution(job, rows.node(), observed="running")
    rows.execution(job, rows.node(), observed="ask_for_bid")
    (found,) = violations(cursor)
    assert "one approved execution a slot" in found


def test_a_state_without_its_history(cursor, completed):
    untriggered("UPDATE orchestrator_execution SET observed = 'failed'")
    assert any("history ends in the present" in it for it in violations(cursor))


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("DELETE FROM orchestrator_liveexecution", "what lives is looked up as it is"),
        ("UPDATE orchestrator_liveexecution SET is_wanted = NULL", "what lives is"),
        ("UPDATE orchestrator_liveexecution SET record = 'x'", "what lives is looked up as it is"),
        ("DELETE FROM orchestrator_untoldorder", "what a node was not told is looked up as it is"),
        ("UPDATE orchestrator_untoldorder SET rev = 9", "what a node was not told is"),
    ],
)
def test_an_execution_that_is_not_looked_up_as_it_is(cursor, statement, rule):
    rows.execution(rows.job(), rows.node(), observed="running")
    assert violations(cursor) == []
    untriggered(statement)
    (found,) = violations(cursor)
    assert rule in found


def test_an_evaluation_that_nobody_finished(cursor, completed):
    rows.leased(completed.job, "somebody")
    assert any("holds a lease" in it and "somebody" in it for it in violations_when_quiet(cursor))


def test_two_evaluations_of_a_job_at_a_time(cursor, completed):
    for _ in range(2):
        Evaluation.objects.create(job=completed.job, type="batch", priority=50, leased_at=Now())
    Evaluation.objects.update(finished_at=Now() + timedelta(seconds=1))
    (found,) = violations(cursor)
    assert "one evaluation of a job at a time" in found


def test_proofs_against_the_database(cursor, completed, tmp_path):
    assert violations_of_proofs(cursor, tmp_path) == [f"{completed.pk} is completed, but never ran"]
    (tmp_path / str(completed.pk)).touch()
    assert violations_of_proofs(cursor, tmp_path) == []
    (tmp_path / f"{completed.pk}.again").touch()
    stranger = rows.unknown_id()
    (tmp_path / str(stranger)).touch()
    assert violations_of_proofs(cursor, tmp_path) == [
        f"{completed.pk}.again was started twice",
        f"{stranger} ran, but no row knows it",
    ]
