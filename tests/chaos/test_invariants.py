"""The audit can fail: each forged wrong is found, and named."""

import pytest
from django.db import connection

from orchestrator.models import Evaluation, Execution, ExecutionHistory, Job
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
    ExecutionHistory.objects.filter(execution=completed, lane="observed", after="running").delete()
    assert any("every revision" in it for it in violations(cursor))
    assert any("where the last one ended" in it for it in violations(cursor))


def test_a_move_that_is_illegal(cursor, completed):
    untriggered(
        "UPDATE orchestrator_executionhistory SET writer = 'endpoint' WHERE after = 'bid_accepted'"
    )
    (found,) = violations(cursor)
    assert found == "observed new bid_accepted endpoint is no legal move"


def test_a_state_without_its_history(cursor, completed):
    untriggered("UPDATE orchestrator_execution SET observed = 'failed'")
    assert any("history ends in the present" in it for it in violations(cursor))


def test_an_evaluation_that_nobody_finished(cursor, completed):
    Evaluation.objects.create(job=completed.job, type="batch", priority=50, token=1)
    (found,) = [it for it in violations_when_quiet(cursor) if "evaluation is finished" in it]
    assert "leased" in found


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
