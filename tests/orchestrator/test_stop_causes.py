"""Who ends an execution writes why: as a cause, on its row and in its history, and in words."""

import pytest
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from nodes.callbacks import Inbound, Unsendable
from nodes.protocol.messages import UNKNOWN_OUTCOME, Happened, Hello, Report
from nodes.protocol.resources import Resources
from orchestrator import broker, endpoint
from orchestrator.lifecycle import Desired, Observed, StopCause, Trigger
from orchestrator.models import Execution, ExecutionHistory, spec_cache
from orchestrator.planners import compute_forwarder
from orchestrator.planners.unsendable_orders import cannot_send
from orchestrator.worker import Worker
from orchestrator.worker.worker_id import WorkerId
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)

SILENT = "its node has been silent too long"


@pytest.fixture
def evaluate():
    worker = Worker(WorkerId.mine())

    def look_at(job):
        broker.enqueue(job.pk, Trigger.OPERATOR)
        assert worker.pull()

    yield look_at
    worker.heartbeat.end()


def hello_without_anything(execution):
    said = Hello(
        version=1, instance="i", run=1, ledger="l", boot="b", resources=Resources(), attributes={}
    )
    compute_forwarder.desired(execution.node_id, said, 1)


def begun_unasked(execution):
    report = Report(str(execution.pk), Happened.START)
    endpoint.receive([Inbound(execution.node_id, 1, 1, 0, (), (report,))])


PARTIES = {
    StopCause.NODE_LOST: ("running", lambda it: rows.lose(it.node), "", SILENT),
    StopCause.NODE_REJECTED: (
        "running",
        lambda it: endpoint.reject_node(it.node_id, actor="user:ana"),
        "user:ana",
        "its node was rejected by ana",
    ),
    StopCause.FORGOTTEN_BY_NODE: (
        "running",
        hello_without_anything,
        "",
        "its node came back without it",
    ),
    StopCause.BID_LOST: (
        "ask_for_bid",
        lambda it: rows.lose(it.node),
        SILENT,
        f"it was lost before anybody had approved it: {SILENT}",
    ),
    StopCause.UNDELIVERABLE: (
        "new",
        lambda it: cannot_send(it.node_id, [Unsendable(str(it.pk), 9, 5)]),
        "its order takes 9 bytes, and a node can be sent 5",
        "its node could not be told: its order takes 9 bytes, and a node can be sent 5",
    ),
    StopCause.NOT_APPROVED: (
        "ask_for_bid",
        begun_unasked,
        "",
        "its node began it before anybody had approved it",
    ),
}


@pytest.mark.parametrize("cause", PARTIES)
def test_whoever_ends_an_execution_writes_why(cause):
    observed, end, detail, sentence = PARTIES[cause]
    execution = rows.execution(rows.job(), rows.node(), observed=observed)
    end(execution)
    execution.refresh_from_db()
    assert (execution.desired, execution.stop_cause) == (Desired.STOPPED, cause)
    assert execution.stop_detail == detail
    [row] = ExecutionHistory.objects.filter(execution=execution).exclude(cause="")
    assert (row.lane, row.after, row.cause) == ("observed", execution.observed, cause)
    assert row.why == sentence


def test_the_scheduler_writes_its_causes_and_the_words_of_the_operator(evaluate):
    job = rows.job(approval="none")
    execution = rows.execution(job, rows.node(), observed=Observed.RUNNING)
    endpoint.stop(job.pk, actor="user:ana", reason="wrong image")
    evaluate(job)
    execution.refresh_from_db()
    assert (execution.stop_cause, execution.stop_detail) == ("job_stopped", "wrong image")
    last = ExecutionHistory.objects.filter(execution=execution).latest("rev")
    assert (last.lane, last.after, last.cause) == ("desired", "stopped", "job_stopped")
    assert last.why == "the job was stopped: wrong image"


def test_the_first_cause_stays_and_the_history_tells_the_others():
    execution = rows.execution(rows.job(), rows.node(), observed=Observed.RUNNING)
    rows.wish(execution, Desired.STOPPED, StopCause.RERUN)
    rows.lose(execution.node)
    execution.refresh_from_db()
    assert (execution.observed, execution.stop_cause) == ("lost", StopCause.RERUN)
    last = ExecutionHistory.objects.filter(execution=execution).latest("rev")
    assert (last.after, last.cause, last.why) == ("lost", "", SILENT)


@pytest.mark.parametrize("end", [Happened.COMPLETE, Happened.FAIL])
def test_what_ends_by_itself_has_no_cause(end):
    execution = rows.execution(rows.job(), rows.node(), observed=Observed.RUNNING)
    report = Report(str(execution.pk), end, exit_code=0)
    endpoint.receive([Inbound(execution.node_id, 1, 1, 0, (), (report,))])
    execution.refresh_from_db()
    assert (execution.desired, execution.stop_cause, execution.stop_detail) == ("stopped", "", "")
    assert not ExecutionHistory.objects.exclude(cause="").exists()


def test_what_is_wanted_cannot_have_a_cause():
    execution = rows.execution(rows.job(), rows.node())
    with pytest.raises(IntegrityError, match="has_no_stop_cause"), transaction.atomic():
        Execution.objects.filter(pk=execution.pk).update(stop_cause="rerun")


# --- interruptions -----------------------------------------------------------------------------


def test_what_a_reboot_cut_off_runs_again_and_has_cost_no_attempt(evaluate):
    node = rows.node()
    job = rows.job(approval="none", retry={"attempts": 1})
    execution = rows.execution(job, node, observed=Observed.RUNNING)
    for attempt in (1, 2):
        said = "the machine was restarted while the task ran"
        report = Report(str(execution.pk), Happened.FAIL, code=UNKNOWN_OUTCOME, message=said)
        endpoint.receive([Inbound(node.pk, 1, attempt, 0, (), (report,))])
        evaluate(job)
        slots = list(job.slots.values_list(*spec_cache.SLOT))
        assert [(it[:3], it[3] is None, it[4]) for it in slots] == [
            ((0, attempt, 0), attempt == 1, attempt)
        ]
        if attempt > 1:  # From the second on it waits; that is over now.
            job.slots.update(retry_at=Now())
            evaluate(job)
        execution = Execution.objects.get(job=job, attempt=attempt + 1)
        rows.move(execution, Observed.RUNNING)
    report = Report(str(execution.pk), Happened.COMPLETE, exit_code=0)
    endpoint.receive([Inbound(node.pk, 1, 3, 0, (), (report,))])
    evaluate(job)
    job.refresh_from_db()
    assert (job.state, list(job.slots.all())) == ("completed", [])


def test_a_job_that_may_run_once_fails_with_its_lost_node(evaluate):
    job = rows.job(approval="none", on_lost="fail")
    execution = rows.execution(job, rows.node(name="gone"), observed=Observed.BID_ACCEPTED)
    rows.node()
    rows.lose(execution.node)
    evaluate(job)
    job.refresh_from_db()
    [why] = job.reason
    assert (job.state, why["is"], why["final"]) == ("failed", "slot-interrupted", "on-lost")
    assert spec_cache.load_progress(job.progress).failed.node == "gone"
    assert Execution.objects.count() == 1
