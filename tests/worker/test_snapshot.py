"""Rows to worlds: true, bounded, and not growing with history."""

import pytest

from nodes.models import Node
from nodes.protocol.resources import Resources
from orchestrator import broker, endpoint
from orchestrator.lifecycle import JobType, Observed, Trigger
from orchestrator.models import Execution
from orchestrator.worker import snapshot
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)


def lease(*jobs):
    broker.enqueue([job.pk for job in jobs], Trigger.JOB_SUBMIT)
    return broker.lease([JobType.BATCH], 64, "test")


def test_the_view_takes_in_what_has_changed_and_forgets_what_was_taken():
    node = rows.node(cpu=1000)
    view = snapshot.ClusterView()
    cluster = view.refresh()
    cluster.take(str(node.pk), Resources(cpu=600))
    assert cluster.free[0][0] == 400
    Node.objects.filter(pk=node.pk).update(allocated_cpu=100)
    again = view.refresh()
    assert again is cluster
    assert again.free[0][0] == 900


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("approval", "rejected", "was rejected"),
        ("connection", "disconnected", "is disconnected"),
        ("eligible", False, "is not eligible"),
        ("draining", True, "drains"),
        ("quarantined", "two instances", "is quarantined"),
        ("degraded", "its disk is full", "is degraded: its disk is full"),
    ],
)
def test_a_node_that_may_get_no_work_says_why(column, value, why):
    node = rows.node()
    view = snapshot.ClusterView()
    assert view.refresh().ready.tolist() == [True]
    Node.objects.filter(pk=node.pk).update(**{column: value})
    cluster = view.refresh()
    assert (cluster.ready.tolist(), list(cluster.unready)) == ([False], [why])


def test_the_labels_of_an_operator_win_over_what_the_node_says():
    rows.node(labels={"arch": "mine"}, name="here")
    [labels] = snapshot.ClusterView().refresh().labels
    assert (labels["arch"], labels["name"], labels["driver.process"]) == ("mine", "here", "true")


def test_settled_executions_are_not_read():
    node, job = rows.node(), rows.job(count=3)
    for slot in range(2):
        rows.execution(job, node, slot=slot, observed=Observed.COMPLETED)
    Execution.objects.filter(job=job).update(settled=True)
    live = rows.execution(job, node, slot=2)
    [world] = snapshot.worlds(lease(job), snapshot.ClusterView().refresh())
    assert [it.id for it in world.executions] == [str(live.pk)]


def test_a_group_is_read_with_a_handful_of_queries(django_assert_max_num_queries):
    node = rows.node(cpu=64_000)
    jobs = [rows.job() for _ in range(25)]
    for job in jobs:
        rows.execution(job, node)
    leases = lease(*jobs)
    cluster = snapshot.ClusterView().refresh()
    with django_assert_max_num_queries(4):
        worlds = snapshot.worlds(leases, cluster)
    assert [len(world.executions) for world in worlds] == [1] * 25


def test_a_removed_node_leaves_the_view_at_the_next_look():
    gone, stays = rows.node(), rows.node()
    view = snapshot.ClusterView()
    assert set(view.refresh().ids) == {str(gone.pk), str(stays.pk)}
    endpoint.remove_node(gone.pk, actor="user:ada")
    assert view.refresh().ids == (str(stays.pk),)
    assert view.refresh().ids == (str(stays.pk),)
    assert snapshot.ClusterView().refresh().ids == (str(stays.pk),)


def test_the_view_of_a_cluster_whose_last_node_was_removed_is_empty():
    node = rows.node()
    view = snapshot.ClusterView()
    view.refresh()
    endpoint.remove_node(node.pk, actor="user:ada")
    assert view.refresh().ids == ()
