"""What nodes say, written down: in batches, exactly once in effect."""

import pytest

from nodes.callbacks import Inbound, Verdict
from nodes.models import Node, NodeSession
from nodes.protocol.messages import Happened, Report, Want
from orchestrator.endpoint import reports
from orchestrator.lifecycle import Desired, Observed
from orchestrator.models import BrokerTrigger, Event, ExecutionHistory, ExecutionOutput, FreedNode
from orchestrator.planners import compute_forwarder
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
    assert FreedNode.objects.filter(node_id=node.pk).exists()


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


def test_a_report_on_another_nodes_execution_is_taken_without_effect_and_the_others_count():
    mine, other, job = rows.node(), rows.node(), rows.job(count=2)
    own = rows.execution(job, mine, observed=Observed.RUNNING)
    foreign = rows.execution(job, other, slot=1, observed=Observed.RUNNING)
    said = frame(mine, (own, Happened.COMPLETE), (foreign, Happened.COMPLETE))
    assert list(reports.receive([said])) == [Verdict.ACCEPTED]
    assert (state(own)[1], state(foreign)[1]) == ("completed", "running")
    event = Event.objects.get(what="foreign-report", node_id=mine.pk)
    assert event.data == {"executions": [str(foreign.pk)]}
    assert allocated(other) == 100


def test_a_node_cannot_take_an_order_for_another():
    mine, other, job = rows.node(), rows.node(), rows.job()
    foreign = rows.execution(job, other)
    said = frame(mine, told=[(foreign, Want.BID)], order_rev=foreign.order_rev)
    assert list(reports.receive([said])) == [Verdict.ACCEPTED]
    assert (state(foreign)[1], foreign.told_rev) == ("new", 0)


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
    rows.lose(node)
    assert (state(running), allocated(node)) == (("stopped", "lost"), 500)
    assert triggers(job) == ["node-lost"]
    reports.receive([frame(node, (running, Happened.COMPLETE))])
    assert (state(running), allocated(node)) == (("stopped", "lost"), 0)
    assert Event.objects.filter(what="late-report", execution_id=running.pk).exists()


@pytest.mark.parametrize(
    "ends", [Happened.DECLINE, Happened.COMPLETE, Happened.FAIL, Happened.CANCEL]
)
def test_every_end_that_comes_late_gives_the_resources_back_once(ends):
    node, job = rows.node(), rows.job()
    asked = rows.execution(job, node, observed=Observed.ASK_FOR_BID, cpu=500)
    rows.lose(node)
    reports.receive([frame(node, (asked, ends), (asked, ends))])
    assert (state(asked)[1], asked.reserved, allocated(node)) == ("lost", False, 0)


def test_a_late_report_says_what_the_execution_was_by_then():
    node, job = rows.node(), rows.job()
    running = rows.execution(job, node, observed=Observed.RUNNING)
    reports.receive([frame(node, (running, Happened.COMPLETE), (running, Happened.FAIL))])
    [event] = Event.objects.filter(what="late-report")
    assert event.message == "a late report (fail) of an execution that is completed"


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


UNAPPROVED = [Observed.NEW, Observed.ASK_FOR_BID, Observed.ASK_FOR_BID_ACCEPTED]


def orders(node, above):
    """What the node must still be told, above a revision."""
    found = compute_forwarder.orders({node.pk: above})
    return {order.execution: order.want for told in found for order in told.orders}


@pytest.mark.parametrize("observed", UNAPPROVED)
@pytest.mark.parametrize("happened", [Happened.PREPARE, Happened.START, Happened.PUBLISH])
def test_what_a_node_begins_before_anybody_approved_it_is_refused_and_stopped(observed, happened):
    node, job = rows.node(), rows.job()
    asked = rows.execution(job, node, observed=observed, cpu=500)
    reports.receive([frame(node, (asked, happened))])
    assert state(asked) == ("stopped", "ask_for_bid_rejected")
    assert (asked.code, asked.started_at, asked.reserved) == ("not-approved", None, True)
    assert allocated(node) == 500, "it may still run there"
    assert asked.order_rev == node.order_rev
    assert orders(node, asked.order_rev - 1) == {str(asked.pk): Want.STOP}
    assert triggers(job) == ["execution-failed"]
    said = Event.objects.get(what="not-approved", execution_id=asked.pk)
    assert "before anybody had approved it; the node is told to stop it" in said.message


def test_what_was_begun_without_an_approval_gives_its_resources_back_when_it_has_stopped():
    node, job = rows.node(), rows.job()
    asked = rows.execution(job, node, observed=Observed.ASK_FOR_BID, cpu=500)
    reports.receive([frame(node, (asked, Happened.START))])
    asked.refresh_from_db()
    reports.receive(
        [frame(node, told=[(asked, Want.STOP)], seq=2, order_rev=asked.order_rev)],
    )
    assert orders(node, 0) == {}
    reports.receive([frame(node, (asked, Happened.CANCEL), seq=3)])
    assert (state(asked)[1], asked.reserved) == ("ask_for_bid_rejected", False)
    assert allocated(node) == 0
    assert FreedNode.objects.filter(node_id=node.pk).exists()


@pytest.mark.parametrize("said", [(Happened.COMPLETE,), (Happened.START, Happened.FAIL)])
def test_what_ran_to_its_end_without_an_approval_did_not_run_for_the_job(said):
    node, job = rows.node(), rows.job()
    asked = rows.execution(job, node, observed=Observed.ASK_FOR_BID, cpu=500)
    reports.receive([frame(node, *((asked, happened) for happened in said))])
    assert (state(asked)[1], asked.reserved) == ("ask_for_bid_rejected", False)
    assert (allocated(node), orders(node, 0)) == (0, {})
    assert Event.objects.filter(what="not-approved", execution_id=asked.pk).count() == 1


def test_an_approval_whose_acknowledgement_was_lost_is_one_all_the_same():
    node, job = rows.node(), rows.job()
    asked = rows.execution(job, node, observed=Observed.ASK_FOR_BID_ACCEPTED)
    rows.wish(asked, Desired.RUNNING)
    reports.receive([frame(node, (asked, Happened.START))])
    assert state(asked) == ("running", "running")


@pytest.mark.parametrize("approved", [True, False])
def test_what_was_stopped_has_begun_rightly_only_if_it_was_approved_before(approved):
    node, job = rows.node(), rows.job()
    asked = rows.execution(job, node, observed=Observed.ASK_FOR_BID_ACCEPTED)
    if approved:
        rows.wish(asked, Desired.RUNNING)
    rows.wish(asked, Desired.STOPPED)
    reports.receive([frame(node, (asked, Happened.START))])
    assert state(asked) == ("stopped", "running" if approved else "ask_for_bid_rejected")
    assert orders(node, asked.order_rev - 1) == {str(asked.pk): Want.STOP}


def test_a_bid_may_be_withdrawn():
    node, job = rows.node(), rows.job()
    bidding = rows.execution(job, node, observed=Observed.ASK_FOR_BID_ACCEPTED, cpu=500)
    reports.receive([frame(node, (bidding, Happened.DECLINE))])
    assert state(bidding) == ("stopped", "ask_for_bid_rejected")
    assert allocated(node) == 0
    steps = ExecutionHistory.objects.filter(execution=bidding, lane="observed")
    assert not steps.filter(after="bid_accepted").exists()
