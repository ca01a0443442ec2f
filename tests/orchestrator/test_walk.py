"""The sequence diagram of the walk, step by step, in one process and a real database."""

import pytest

from nodes.callbacks import Inbound
from nodes.protocol.messages import Happened, Report, Want
from orchestrator import broker, endpoint
from orchestrator.explain import reasons, wording
from orchestrator.lifecycle import JobType
from orchestrator.models import (
    BlockedJob,
    BrokerTrigger,
    Evaluation,
    Event,
    Execution,
    ExecutionHistory,
    Job,
)
from orchestrator.planners import compute_forwarder, state_updater
from orchestrator.scheduling.slot_scheduler import schedule
from orchestrator.worker import snapshot
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)


class Network:
    """Nodes that do as they are told, each order taken and answered when asked."""

    def __init__(self, *nodes):
        self.sent = {node.pk: 0 for node in nodes}
        self.seq = dict.fromkeys(self.sent, 0)

    def answer(self, **happened):
        """Deliver what is untold, and report for each kind of order what *happened* says."""
        batch = []
        for told in compute_forwarder.orders(self.sent):
            self.sent[told.node] = told.order_rev
            self.seq[told.node] += 1
            reports = [
                Report(execution=order.execution, happened=Happened(event))
                for order in told.orders
                for event in happened.get(order.want.value, ())
            ]
            batch.append(
                Inbound(
                    told.node,
                    1,
                    self.seq[told.node],
                    told.order_rev,
                    tuple((order.execution, order.want) for order in told.orders),
                    tuple(reports),
                )
            )
        endpoint.receive(batch)
        return [want for inbound in batch for _, want in inbound.told]


def evaluate():
    """What a worker does with one lease group; the outcomes."""
    leases = broker.lease([JobType.BATCH], 64, "test")
    view = snapshot.ClusterView()
    cluster = view.refresh()
    decisions = []
    for lease, world in zip(leases, snapshot.worlds(leases, cluster), strict=True):
        plan = schedule(world)
        for place in plan.place:
            cluster.take(place.node, place.need)
        decisions.append(state_updater.Decision(lease, world, plan))
    state_updater.apply(decisions)
    return [Evaluation.objects.get(pk=lease.evaluation).outcome for lease in leases]


def states(job):
    return sorted(Execution.objects.filter(job=job).values_list("desired", "observed"))


def test_the_walk_with_bidding_is_the_diagram_of_the_manual():
    node = rows.node()
    network = Network(node)
    job = endpoint.submit(rows.job_spec(), actor="user:ana").job
    evaluate()
    assert states(job) == [("pending", "new")]
    assert network.answer(bid=["bid"]) == [Want.BID]
    assert states(job) == [("pending", "ask_for_bid_accepted")]
    evaluate()
    assert states(job) == [("running", "ask_for_bid_accepted")]
    assert network.answer(run=["start"]) == [Want.RUN]
    assert states(job) == [("running", "running")]
    evaluate()
    job.refresh_from_db()
    assert job.state == "running"
    [execution] = Execution.objects.filter(job=job)
    report = Report(execution=str(execution.pk), happened=Happened.COMPLETE)
    endpoint.receive([Inbound(node.pk, 1, 3, network.sent[node.pk], (), (report,))])
    evaluate()
    job.refresh_from_db()
    assert (job.state, states(job)) == ("completed", [("stopped", "completed")])
    assert not Evaluation.objects.exclude(state="complete").exists()
    observed = ExecutionHistory.objects.filter(execution=execution, lane="observed")
    assert list(observed.order_by("rev").values_list("after", "writer")) == [
        ("new", "state-updater"),
        ("ask_for_bid", "compute-forwarder"),
        ("ask_for_bid_accepted", "endpoint"),
        ("bid_accepted", "compute-forwarder"),
        ("running", "endpoint"),
        ("completed", "endpoint"),
    ]


def test_without_approval_the_node_is_told_to_run_at_once():
    network = Network(rows.node())
    job = endpoint.submit(rows.job_spec(approval="none"), actor="user:ana").job
    evaluate()
    assert network.answer(run=["start", "complete"]) == [Want.RUN]
    evaluate()
    job.refresh_from_db()
    assert (job.state, states(job)) == ("completed", [("stopped", "completed")])


def test_a_rejected_bid_goes_to_another_node():
    network = Network(rows.node(), rows.node())
    job = endpoint.submit(rows.job_spec(), actor="user:ana").job
    evaluate()
    network.answer(bid=["decline"])
    evaluate()
    nodes = Execution.objects.filter(job=job).values_list("node", flat=True)
    assert len(set(nodes)) == 2


def test_a_failed_attempt_is_followed_by_another_after_its_delay():
    network = Network(rows.node())
    spec = rows.job_spec(approval="none", retry={"attempts": 2, "delay": "1s"})
    job = endpoint.submit(spec, actor="user:ana").job
    evaluate()
    network.answer(run=["start", "fail"])
    evaluate()
    job.refresh_from_db()
    assert job.state == "queued"
    [why] = reasons.load(job.reason)
    assert (why.slots, why.last.attempt, why.until > job.updated_at) == (1, 1, True)


def test_why_a_job_failed_is_kept_however_often_it_is_evaluated_again():
    network = Network(rows.node(name="local-3"))
    spec = rows.job_spec(approval="none", retry={"attempts": 1})
    job = endpoint.submit(spec, actor="user:ana").job
    evaluate()
    network.answer(run=["start", "fail"])
    evaluate()
    job.refresh_from_db()
    before = job.reason
    assert wording.text(wording.job(job)).startswith("slot 0 failed on local-3 at attempt 1 of 1")
    broker.evaluate_now(job.pk, "user:ana")
    evaluate()
    job.refresh_from_db()
    assert (job.state, job.reason) == ("failed", before)


def test_a_job_waits_since_it_first_found_no_place_however_often_it_is_looked_at():
    rows.node(cpu=100)
    job = endpoint.submit(rows.job_spec(task={"resources": {"cpu": 2}}), actor="user:ana").job
    evaluate()
    since = BlockedJob.objects.get(job=job).waits_since
    broker.evaluate_now(job.pk, "user:ana")
    evaluate()
    row = BlockedJob.objects.get(job=job)
    assert (row.waits_since, row.blocked_class.impossible) == (since, True)
    assert row.since > since
    [why] = reasons.load(Job.objects.get(pk=job.pk).reason)
    assert why.since == since


def test_a_bid_that_is_awaited_names_its_node_and_since_when():
    rows.node(name="local-3")
    job = endpoint.submit(rows.job_spec(), actor="user:ana").job
    evaluate()
    job.refresh_from_db()
    [why] = reasons.load(job.reason)
    assert (why.bids, why.nodes) == (1, ("local-3",))
    assert abs((why.since - job.updated_at).total_seconds()) < 5


def test_stopping_a_job_stops_what_runs_and_then_the_job():
    network = Network(rows.node())
    job = endpoint.submit(rows.job_spec(approval="none", count=2), actor="user:ana").job
    evaluate()
    network.answer(run=["start"])
    evaluate()
    endpoint.stop(job.pk, actor="user:ana", reason="wrong image")
    evaluate()
    assert set(network.answer(stop=["cancel"])) == {Want.STOP}
    evaluate()
    job.refresh_from_db()
    assert job.state == "stopped"
    assert set(states(job)) == {("stopped", "cancelled")}
    said = wording.text(wording.job(job))
    assert said.startswith("by ana: wrong image; 0 of 2 slots completed after")
    ends = Event.objects.filter(what="job-stopped").values_list("message", flat=True)
    assert list(ends) == [f"{job.name} is stopped by ana: wrong image"]


def test_the_same_specification_again_changes_nothing_and_says_so():
    spec = rows.job_spec()
    first = endpoint.submit(spec, actor="user:ana")
    again = endpoint.submit(spec, actor="user:ana")
    assert (first.created, again.created, again.changed, again.version) == (True, False, False, 1)


def test_a_changed_task_is_a_new_version_and_replaces_what_runs():
    network = Network(rows.node())
    spec = rows.job_spec(approval="none", name="twice")
    job = endpoint.submit(spec, actor="user:ana").job
    evaluate()
    network.answer(run=["start"])
    changed = rows.job_spec(approval="none", name="twice", task={"command": ["false"]})
    assert endpoint.submit(changed, actor="user:ana").version == 2
    evaluate()
    assert set(network.answer(stop=["cancel"], run=["start"])) >= {Want.STOP}
    evaluate()
    live = Execution.objects.filter(job=job).exclude(desired="stopped")
    assert [it.version for it in live] == [2]


def test_a_rerun_begins_a_new_round():
    network = Network(rows.node())
    job = endpoint.submit(rows.job_spec(approval="none"), actor="user:ana").job
    evaluate()
    network.answer(run=["start", "complete"])
    evaluate()
    endpoint.rerun(job.pk, actor="user:ana")
    evaluate()
    network.answer(run=["start", "complete"])
    evaluate()
    job.refresh_from_db()
    assert (job.state, job.round) == ("completed", 2)
    assert sorted(Execution.objects.values_list("round", flat=True)) == [1, 2]


def test_a_lease_group_is_read_and_written_with_queries_that_do_not_grow_with_it(
    django_assert_max_num_queries,
):
    for _ in range(4):
        rows.node(cpu=64_000)
    endpoint.submit_many([rows.job_spec() for _ in range(30)], actor="user:ana")
    with django_assert_max_num_queries(60):
        evaluate()
    assert Execution.objects.count() == 30


def test_a_plan_whose_job_changed_meanwhile_is_thrown_away():
    rows.node()
    job = endpoint.submit(rows.job_spec(), actor="user:ana").job
    [lease] = broker.lease([JobType.BATCH], 1, "test")
    [world] = snapshot.worlds([lease], snapshot.ClusterView().refresh())
    plan = schedule(world)
    endpoint.stop(job.pk, actor="user:ben")
    state_updater.apply([state_updater.Decision(lease, world, plan)])
    assert not Execution.objects.exists()
    evaluate()
    job.refresh_from_db()
    assert job.state == "stopped"


def test_what_no_longer_fits_is_dropped_and_the_rest_is_written():
    small, large = rows.node(cpu=100), rows.node(cpu=200)
    job = endpoint.submit(rows.job_spec(count=3), actor="user:ana").job
    [lease] = broker.lease([JobType.BATCH], 1, "test")
    [world] = snapshot.worlds([lease], snapshot.ClusterView().refresh())
    plan = schedule(world)
    rows.execution(rows.job(), small, cpu=100)  # Somebody else was quicker.
    state_updater.apply([state_updater.Decision(lease, world, plan)])
    placed = Execution.objects.filter(job=job)
    assert {it.node_id for it in placed} == {large.pk}
    outcome = Evaluation.objects.get(pk=lease.evaluation).outcome
    assert "filled first" in outcome
    assert BrokerTrigger.objects.filter(job=job).exists()
