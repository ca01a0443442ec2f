"""A node is removed when it holds nothing; what ran there stays readable."""

import threading

import pytest
from django.db import connection, transaction

from nodes.models import Node, NodeSession
from orchestrator import broker, endpoint
from orchestrator.endpoint import drivers
from orchestrator.explain.errors import NodeInUse, NotFound
from orchestrator.lifecycle import JobType, Observed, Writer
from orchestrator.models import BrokerTrigger, Event, Execution
from orchestrator.planners.transitions import lock_nodes
from orchestrator.worker import housekeeping
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)


def remove(node):
    return endpoint.remove_node(node.pk, actor="user:ada")


def test_a_removed_node_is_gone_and_its_history_stays():
    node, job = rows.node(name="n"), rows.job()
    ended = rows.execution(job, node, observed=Observed.COMPLETED)
    Execution.objects.update(reserved=False)
    remove(node)
    assert not Node.objects.exists()
    with pytest.raises(NotFound):
        endpoint.find_node("n")
    assert endpoint.find_node("n", removed=True) == node
    assert endpoint.find_execution(str(ended.pk), Execution.objects.all()).node.name == "n"
    event = Event.objects.get(node_id=node.pk)
    assert (event.what, event.actor, event.message) == ("remove", "user:ada", "ada removes n")
    assert NodeSession.objects.get().epoch > 1, "what its link still says is fenced"


def test_removing_it_again_changes_nothing():
    node = rows.node()
    once = remove(node)
    assert remove(node).removed_at == once.removed_at
    assert Event.objects.count() == 1


def test_its_name_is_free_and_means_the_new_one():
    old = rows.node(name="n")
    remove(old)
    new = rows.node(name="n")
    assert endpoint.find_node("n") == endpoint.find_node("n", removed=True) == new
    assert endpoint.find_node(str(old.pk), removed=True) == old


@pytest.mark.parametrize("observed", [Observed.NEW, Observed.RUNNING, Observed.LOST])
def test_a_node_that_holds_something_is_not_removed_and_says_what(observed):
    node, job = rows.node(name="n"), rows.job(name="etl", count=7)
    for slot in range(7):
        rows.execution(job, node, slot=slot, observed=observed)
    with pytest.raises(NodeInUse) as refused:
        remove(node)
    assert str(refused.value) == (
        "n cannot be removed: it still holds 7 executions: "
        + "".join(f"etl slot {slot} ({observed}), " for slot in range(5))
        + "and 2 more."
    )
    assert "`muster node drain n`" in refused.value.hint
    node.refresh_from_db()
    assert (node.removed_at, NodeSession.objects.get().epoch) == (None, 1)


def test_what_was_lost_with_its_machine_does_not_keep_a_node():
    node = rows.node()
    lost = rows.execution(rows.job(), node, observed=Observed.LOST)
    Node.objects.update(connection="disconnected")
    Node.objects.update(connection="lost")
    removed = remove(node)
    lost.refresh_from_db()
    assert (lost.reserved, lost.observed) == (False, "lost")
    assert (removed.allocated_cpu, removed.allocated_memory) == (0, 0)


def test_a_job_that_waits_for_the_node_to_return_is_told_that_it_will_not():
    node, job = rows.node(), rows.job(on_lost="wait")
    rows.execution(job, node, observed=Observed.LOST)
    for state in ("disconnected", "lost"):
        Node.objects.update(connection=state)
    remove(node)
    asked = BrokerTrigger.objects.values_list("job_id", "trigger")
    assert list(asked) == [(job.pk, "node-lost")]


def test_what_a_plan_places_while_the_node_is_being_removed_keeps_it(eventually):
    """The plan has the node's lock; the removal waits for it and looks again."""
    node, job = rows.node(), rows.job()
    answers = []

    def ask():
        try:
            answers.append(remove(node))
        except NodeInUse as refused:
            answers.append(refused)
        finally:
            connection.close()

    asking = threading.Thread(target=ask)
    with transaction.atomic():
        lock_nodes([node.pk])
        asking.start()
        eventually(somebody_waits)
        Execution.objects.create(
            job=job, node=node, version=1, slot=0, order_rev=1, by_writer=Writer.STATE_UPDATER
        )
    asking.join(20)
    [refused] = answers
    assert isinstance(refused, NodeInUse)


def somebody_waits():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"quarantined": "two agents"}, "is quarantined"),
        ({"degraded": "its disk is full"}, "is degraded: its disk is full"),
        ({"approval": "rejected"}, "was rejected"),
        ({"removed_at": "2026-01-01T00:00:00Z"}, "was removed"),
    ],
)
def test_a_plan_that_comes_too_late_is_told_why_its_node_is_closed(columns, why):
    node = rows.node(**columns)
    with transaction.atomic():
        assert lock_nodes([node.pk])[node.pk].closed == why


def test_a_removed_node_is_counted_and_offered_nowhere(client, admin_user):
    node = rows.node(name="gone-1")
    Node.objects.update(connection="disconnected")
    Node.objects.update(connection="lost")
    remove(node)
    rows.node(name="here-1")
    client.force_login(admin_user)
    assert client.get("/api/v1/status").json()["nodes"]["total"] == 1
    assert [it["name"] for it in client.get("/api/v1/nodes").json()["items"]] == ["here-1"]
    for page in ("/nodes/", "/", "/admin/nodes/node/"):
        assert "gone-1</a>" not in client.get(page).content.decode()
    assert broker.lease([JobType.BATCH], 1, "test") == []
    housekeeping.notice_silence()
    assert {it.node_id for it in Event.objects.all()} == {node.pk}


def test_the_drivers_of_a_removed_node_are_none_of_the_cluster():
    node = rows.node(attributes={"node.driver.noop": "true"})
    asked = rows.job_spec(task={"driver": "noop", "command": ["true"]})
    assert drivers.warnings([asked]) == [[]]
    remove(node)
    [[warning]] = drivers.warnings([asked])
    assert "has the driver 'noop'" in warning["message"]
    assert warning["hint"] == "No node has any yet."
