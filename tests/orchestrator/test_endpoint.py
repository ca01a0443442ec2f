"""The verbs of people: whole or not at all, and in any company."""

import pytest

from nodes.models import Node, NodeSession
from orchestrator import broker, endpoint
from orchestrator.lifecycle import Observed
from orchestrator.models import BrokerTrigger, Event, Execution, Job
from orchestrator.planners import state_updater
from orchestrator.planners.state_updater import Decision
from orchestrator.scheduling.slot_scheduler import schedule
from orchestrator.worker import snapshot
from tests import rows
from tests.interleave.holding import Held
from tests.orchestrator.test_walk import evaluate

pytestmark = pytest.mark.django_db(transaction=True)

NODE_VERBS = {
    "approve": lambda node: endpoint.approve_node(node, actor="user:a"),
    "reject": lambda node: endpoint.reject_node(node, actor="user:a"),
    "eligible": lambda node: endpoint.set_eligible(node, False, actor="user:a"),
    "label": lambda node: endpoint.label_node(node, {"pool": "a"}, actor="user:a"),
    "drain": lambda node: endpoint.set_draining(node, True, actor="user:a"),
    "release": lambda node: endpoint.release_node(node, actor="user:a"),
}


def as_it_is(node):
    return (
        Node.objects.filter(pk=node.pk).values().get(),
        NodeSession.objects.filter(pk=node.pk).values().get(),
        Event.objects.count(),
        BrokerTrigger.objects.count(),
    )


@pytest.mark.parametrize("verb", NODE_VERBS)
def test_a_verb_about_a_node_that_is_cut_short_anywhere_changes_nothing(verb, cut_short):
    quarantined = {"quarantined": "copied"} if verb == "release" else {}
    pending = {"approval": "pending"} if verb == "approve" else {}
    node = rows.node(**quarantined, **pending)
    before = as_it_is(node)
    cuts = cut_short(lambda: NODE_VERBS[verb](node.pk), lambda: as_it_is(node) == before)
    assert cuts > 2
    assert as_it_is(node) != before


def test_a_quarantine_is_ended_once_however_often_the_node_is_released():
    node = rows.node(name="n", quarantined="copied")
    for _ in range(2):
        assert not endpoint.release_node(node.pk, actor="user:a").quarantined
    assert [it.message for it in Event.objects.all()] == ["a ends the quarantine of n"]


def test_what_a_plan_puts_on_a_node_while_it_is_rejected_is_lost_too():
    node, _ = rows.node(), rows.submitted(approval="none")
    (lease,) = broker.lease(None, 1, "w")
    (world,) = snapshot.worlds([lease], snapshot.ClusterView().refresh())
    plan = schedule(world)
    reject = Held(lambda: endpoint.reject_node(node.pk, actor="user:a"), at=3)
    assert reject.is_held()  # It has found nothing that runs there.
    state_updater.apply([Decision(lease, world, plan)])
    reject.finish()
    assert reject.error is None
    placed = Execution.objects.get()
    assert (placed.node_id, placed.observed) == (node.pk, Observed.LOST)


def waits_for_lost(**differing):
    """An execution of a job that waits for its node to return, and that node."""
    node = rows.node(name="n")
    job = rows.job(on_lost="wait")
    return rows.execution(job, node, **differing), node


def lose(node):
    for connection in ("disconnected", "lost"):
        Node.objects.filter(pk=node.pk).update(connection=connection)
    endpoint.lose_silent()


def is_waited_for(execution):
    evaluate()
    execution.refresh_from_db()
    return not execution.settled


@pytest.mark.parametrize("is_lost_before", [False, True])
def test_nobody_waits_for_a_node_that_was_rejected(is_lost_before):
    execution, node = waits_for_lost(observed="running")
    if is_lost_before:
        lose(node)
        assert is_waited_for(execution)
    endpoint.reject_node(node.pk, actor="user:a")
    node.refresh_from_db()
    assert (node.allocated_cpu, is_waited_for(execution)) == (0, False)


@pytest.mark.parametrize(
    ("observed", "waited_for"),
    [
        ("ask_for_bid", False),
        ("ask_for_bid_accepted", False),
        ("bid_accepted", True),
        ("running", True),
    ],
)
def test_only_what_may_run_on_a_lost_node_is_waited_for(observed, waited_for):
    execution, node = waits_for_lost(observed=observed)
    lose(node)
    assert is_waited_for(execution) == waited_for


def test_batches_of_the_same_new_names_do_not_deadlock(in_threads):
    for number in range(10):
        names = [f"r{number}-{name}" for name in range(60)]

        def submit(order):
            endpoint.submit_many([rows.job_spec(name=name) for name in order], actor="user:a")

        assert not in_threads(lambda: submit(names), lambda: submit(names[::-1]))  # noqa: B023
    assert Job.objects.count() == 600
