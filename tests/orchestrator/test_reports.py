"""What nodes say, written down: in batches, exactly once in effect."""

import pytest

from nodes.models import Node, NodeSession
from nodes.protocol.messages import Happened, Report, Want
from nodes.upward import Inbound, Verdict
from orchestrator import reports
from orchestrator.lifecycle import Desired, Observed
from orchestrator.models import BrokerTrigger, Event, ExecutionHistory, ExecutionOutput
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)


def frame(node, *said, told=(), seq=1, epoch=1, order_rev=0):
    """A Reports frame; *said* are pairs of an execution and what happened, or whole Reports."""
    items = tuple(
        it if isinstance(it, Report) else Report(execution=str(it[0].pk), happened=it[1])
        for it in said
    )
    named = tuple((str(execution.pk), wanted) for execution, wanted in told)
    return Inbound(node.pk, epoch, seq, order_rev, named, items)


def state(execution):
    execution.refresh_from_db()
    return execution.desired, execution.observed


def triggers(job):
    return sorted(BrokerTrigger.objects.filter(job_id=job.pk).values_list("trigger", flat=True))


def allocated(node):
    node.refresh_from_db()
    return node.allocated_cpu


def test_a_bid_in_the_frame_that_takes_the_order_writes_both_steps():
    node, job = rows.node(), rows.job()
    asked = rows.execution(job, node)
    verdicts = reports.receive(
        [frame(node, (asked, Happened.BID), told=[(asked, Want.BID)], order_rev=asked.order_rev)]
    )
    assert list(verdicts) == [Verdict.ACCEPTED]
    assert state(asked) == ("pending", "ask_for_bid_accepted")
    assert asked.told_rev == asked.order_rev
    assert triggers(job) == ["execution-update"]


def test_a_short_task_that_starts_and_ends_in_one_frame_keeps_every_step():
    node, job = rows.node(), rows.job()
    running = rows.execution(job, node, observed=Observed.BID_ACCEPTED)
    reports.receive([frame(node, (running, Happened.START), (running, Happened.COMPLETE))])
    assert state(running) == ("stopped", "completed")
    steps = ExecutionHistory.objects.filter(execution=running, lane="observed").order_by("rev")
    assert [step.after for step in steps][-2:] == ["running", "completed"]


def test_what_ended_gives_its_resources_back_in_the_same_transaction():
    node, job = rows.node(), rows.job()
    running = rows.execution(job, node, observed=Observed.RUNNING, cpu=700)
    assert allocated(node) == 700
    reports.receive([frame(node, (running, Happened.COMPLETE))])
    assert allocated(node) == 0
    assert BrokerTrigger.objects.filter(node_id=node.pk).exists()


def test_a_repeated_frame_is_acknowledged_and_changes_nothing():
    node, job = rows.node(), rows.job()
    running = rows.execution(job, node, observed=Observed.RUNNING)
    once = frame(node, (running, Happened.COMPLETE))
    assert list(reports.receive([once])) == [Verdict.ACCEPTED]
    revision = rows.Execution.objects.get(pk=running.pk).rev
    assert list(reports.receive([once])) == [Verdict.REPEATED]
    running.refresh_from_db()
    assert (running.rev, allocated(node)) == (revision, 0)


def test_an_old_session_cannot_write():
    node, job = rows.node(), rows.job()
    running = rows.execution(job, node, observed=Observed.RUNNING)
    NodeSession.objects.filter(node=node).update(epoch=2)
    assert list(reports.receive([frame(node, (running, Happened.COMPLETE))])) == [Verdict.FENCED]
    assert state(running) == ("running", "running")


def test_a_gap_in_the_sequence_has_no_effect():
    node, job = rows.node(), rows.job()
    running = rows.execution(job, node, observed=Observed.RUNNING)
    late = frame(node, (running, Happened.COMPLETE), seq=3)
    assert list(reports.receive([late])) == [Verdict.OUT_OF_SEQUENCE]
    assert state(running) == ("running", "running")


def test_a_node_may_speak_of_its_own_executions_only():
    mine, other, job = rows.node(), rows.node(), rows.job(count=2)
    own = rows.execution(job, mine, observed=Observed.RUNNING)
    foreign = rows.execution(job, other, slot=1, observed=Observed.RUNNING)
    verdicts = reports.receive(
        [frame(mine, (own, Happened.COMPLETE), (foreign, Happened.COMPLETE))]
    )
    assert list(verdicts) == [Verdict.REFUSED]
    assert (state(own)[1], state(foreign)[1]) == ("running", "running")
    assert Event.objects.filter(what="refused-report", node_id=mine.pk).exists()


def test_an_unknown_execution_harms_nothing():
    node, job = rows.node(), rows.job()
    running = rows.execution(job, node, observed=Observed.RUNNING)
    stranger = Report(execution=str(rows.unknown_id()), happened=Happened.COMPLETE)
    nonsense = Report(execution="no-id-at-all", happened=Happened.COMPLETE)
    verdicts = reports.receive([frame(node, stranger, nonsense, (running, Happened.COMPLETE))])
    assert list(verdicts) == [Verdict.ACCEPTED]
    assert state(running) == ("stopped", "completed")


def test_the_last_output_is_kept_with_the_end():
    node, job = rows.node(), rows.job()
    running = rows.execution(job, node, observed=Observed.RUNNING)
    reports.receive(
        [
            frame(
                node,
                Report(
                    execution=str(running.pk),
                    happened=Happened.FAIL,
                    exit_code=3,
                    code="exit-code",
                    message="exited with 3",
                    stdout="42\0",
                    stdout_size=3,
                ),
            )
        ]
    )
    running.refresh_from_db()
    assert (running.observed, running.exit_code, running.message) == ("failed", 3, "exited with 3")
    output = ExecutionOutput.objects.get(execution=running)
    assert (output.stdout, output.stdout_size) == ("42\ufffd", 3)
    assert triggers(job) == ["execution-failed"]


def test_a_lost_node_keeps_its_reservation_until_it_reports_the_execution_gone():
    node, job = rows.node(), rows.job()
    running = rows.execution(job, node, observed=Observed.RUNNING, cpu=500)
    assert reports.lose([node.pk], reason="silent") == 1
    assert (state(running), allocated(node)) == (("stopped", "lost"), 500)
    assert triggers(job) == ["node-lost"]
    reports.receive([frame(node, (running, Happened.COMPLETE))])
    assert (state(running), allocated(node)) == (("stopped", "lost"), 0)
    assert Event.objects.filter(what="late-report", execution_id=running.pk).exists()


def test_many_nodes_at_once_are_written_with_a_bounded_number_of_queries(
    django_assert_max_num_queries,
):
    job = rows.job(count=40)
    frames = []
    for slot in range(40):
        node = rows.node()
        running = rows.execution(job, node, slot=slot, observed=Observed.BID_ACCEPTED)
        frames.append(frame(node, (running, Happened.START), (running, Happened.COMPLETE)))
    with django_assert_max_num_queries(16):
        assert set(reports.receive(frames)) == {Verdict.ACCEPTED}
    assert not Node.objects.exclude(allocated_cpu=0).exists()


def test_a_rejected_bid_is_over_as_soon_as_the_node_has_taken_it():
    node, job = rows.node(), rows.job()
    bidding = rows.execution(
        job, node, observed=Observed.ASK_FOR_BID_ACCEPTED, desired=Desired.STOPPED
    )
    reports.receive([frame(node, told=[(bidding, Want.REJECT)], order_rev=bidding.order_rev)])
    assert (state(bidding), allocated(node)) == (("stopped", "bid_rejected"), 0)
