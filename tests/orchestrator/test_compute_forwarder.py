"""What nodes must be told, read from the executions themselves."""

import msgspec
import pytest
from django.db import connection, transaction
from django.utils import timezone

from nodes import membership
from nodes.callbacks import Inbound
from nodes.errors import Fenced
from nodes.models import Node
from nodes.protocol import codec
from nodes.protocol.messages import BATCH, Happened, Held, Hello, Holding, Orders, Report, Want
from nodes.protocol.resources import Resources
from orchestrator import endpoint
from orchestrator.endpoint import reports
from orchestrator.lifecycle import Desired, Observed
from orchestrator.models import BrokerTrigger, Event, Execution
from orchestrator.planners import compute_forwarder
from orchestrator.spec import InvalidSpec
from orchestrator.spec.model import LARGEST_SENT, MOST_COUNT
from tests import rows
from tests.pages import nothing_is_vacuumed, pages_read

pytestmark = pytest.mark.django_db(transaction=True)


def hello(*holds):
    return Hello(
        version=1,
        instance="i",
        run=1,
        ledger="l",
        boot="b",
        resources=Resources(cpu=4000),
        attributes={},
        holds=tuple(Held(str(key), state) for key, state in holds),
    )


def desired(node, *holds):
    answer = compute_forwarder.desired(node.pk, hello(*holds), 1)
    return {order.execution: order.want for order in answer.orders}


def state(execution):
    execution.refresh_from_db()
    return execution.desired, execution.observed


def give_up_lost(node, job):
    rows.execution(job, node, observed=Observed.LOST)
    desired(node)


def never_told(node, job):
    rows.execution(job, node, desired=Desired.STOPPED)
    desired(node)


def reported(node, job):
    running = rows.execution(job, node, observed=Observed.RUNNING, desired=Desired.STOPPED)
    report = Report(str(running.pk), Happened.COMPLETE)
    reports.receive([Inbound(node.pk, 1, 1, 0, (), (report,))])


def test_orders_are_complete_up_to_their_revision_and_in_order():
    node, job = rows.node(), rows.job(count=2)
    first, second = rows.execution(job, node), rows.execution(job, node, slot=1)
    [told] = compute_forwarder.orders({node.pk: 0})
    assert [order.execution for order in told.orders] == [str(first.pk), str(second.pk)]
    assert told.order_rev == second.order_rev
    assert compute_forwarder.orders({node.pk: second.order_rev}) == []


def test_an_order_carries_the_task_and_who_it_is():
    node, job = rows.node(), rows.job(count=3, task={"command": ["echo", "hi"], "env": {"A": "1"}})
    row = rows.execution(job, node, slot=2)
    [told] = compute_forwarder.orders({node.pk: 0})
    [order] = told.orders
    assert order.task is not None
    assert order.task.command == ("echo", "hi")
    assert order.task.env == {
        "A": "1",
        "MUSTER_JOB_ID": str(job.pk),
        "MUSTER_JOB_NAME": job.name,
        "MUSTER_EXECUTION_ID": str(row.pk),
        "MUSTER_SLOT": "2",
        "MUSTER_COUNT": "3",
        "MUSTER_ATTEMPT": "1",
        "MUSTER_NODE_ID": str(node.pk),
    }


def largest_task():
    """The largest that a job may ask for: control characters, of which each takes six bytes."""
    rest = codec.size(rows.job_spec(task={"command": ["x", "", "", ""]}).task.as_message())
    room = (LARGEST_SENT - rest) // 6
    words = ["\x01" * (room // 3), "\x01" * (room // 3), "\x01" * (room - 2 * (room // 3))]
    return {"command": ["x", *words]}


def test_an_order_of_the_largest_task_fits_a_frame():
    node, task = rows.node(name="n" * 63), largest_task()
    job = rows.job(name="j" * 63, count=MOST_COUNT, task=task)
    with pytest.raises(InvalidSpec, match="1 mistake"):
        rows.job_spec(task={"command": [*task["command"], "x"]})
    rows.execution(job, node, slot=MOST_COUNT - 1, attempt=2**31 - 1)
    [told] = compute_forwarder.orders({node.pk: 0})
    frame = codec.encode(Orders(2**53, 2**53, 2**53, told.orders))
    assert codec.decode_from_server(frame).items == told.orders


def test_an_unapproved_node_is_told_nothing():
    node = rows.node()
    rows.execution(rows.job(), node)
    Node.objects.filter(pk=node.pk).update(approval="rejected")
    assert compute_forwarder.orders({node.pk: 0}) == []
    assert desired(node) == {}


def test_the_desired_set_is_everything_live_on_the_node():
    node, job = rows.node(), rows.job(count=4)
    asked = rows.execution(job, node)
    running = rows.execution(job, node, slot=1, observed=Observed.RUNNING)
    rows.execution(job, node, slot=2, observed=Observed.COMPLETED)
    stopping = rows.execution(job, node, slot=3, observed=Observed.RUNNING, desired=Desired.STOPPED)
    holds = [(running.pk, Holding.RUNNING), (stopping.pk, Holding.RUNNING)]
    assert desired(node, *holds) == {
        str(asked.pk): Want.BID,
        str(running.pk): Want.RUN,
        str(stopping.pk): Want.STOP,
    }


def test_what_the_node_holds_proves_what_it_was_told():
    node, job = rows.node(), rows.job()
    asked = rows.execution(job, node)
    desired(node, (asked.pk, Holding.BID))
    assert state(asked) == ("pending", "ask_for_bid_accepted")


@pytest.mark.parametrize("holding", [Holding.PREPARING, Holding.RUNNING])
@pytest.mark.parametrize("observed", [Observed.NEW, Observed.ASK_FOR_BID_ACCEPTED])
def test_what_the_node_holds_without_an_approval_is_refused_and_stopped(observed, holding):
    node, job = rows.node(), rows.job()
    asked = rows.execution(job, node, observed=observed, cpu=300)
    for _ in range(2):  # The answer to the first hello may have been lost.
        assert desired(node, (asked.pk, holding)) == {str(asked.pk): Want.STOP}
        assert (*state(asked), asked.reserved) == ("stopped", "ask_for_bid_rejected", True)
    assert Event.objects.filter(what="not-approved", execution_id=asked.pk).count() == 1
    assert desired(node) == {}
    node.refresh_from_db()
    assert (node.allocated_cpu, Execution.objects.filter(reserved=True).exists()) == (0, False)


def test_a_lost_execution_that_the_node_still_runs_is_stopped():
    node, job = rows.node(), rows.job()
    lost = rows.execution(job, node, observed=Observed.LOST)
    assert desired(node, (lost.pk, Holding.RUNNING)) == {str(lost.pk): Want.STOP}


def test_a_lost_execution_that_the_node_no_longer_holds_gives_back_its_resources():
    node, job = rows.node(), rows.job()
    rows.execution(job, node, observed=Observed.LOST, cpu=300)
    desired(node)
    node.refresh_from_db()
    assert node.allocated_cpu == 0
    assert not Execution.objects.filter(reserved=True).exists()


def test_a_hello_of_a_session_that_was_replaced_meanwhile_loses_nothing():
    node, job = rows.node(), rows.job()
    running = rows.execution(job, node, observed=Observed.RUNNING)
    record = endpoint.record_node
    late = membership.greet(node.pk, hello(), "web-1", record=record).epoch
    membership.greet(node.pk, hello((running.pk, Holding.RUNNING)), "web-2", record=record)
    with pytest.raises(Fenced):
        compute_forwarder.desired(node.pk, hello(), late)
    assert state(running) == ("running", "running")


def test_a_job_that_waits_for_a_lost_node_is_looked_at_when_the_node_is_back_without_it():
    node, job = rows.node(), rows.job(on_lost="wait")
    rows.execution(job, node, observed=Observed.LOST)
    desired(node)
    assert BrokerTrigger.objects.filter(job_id=job.pk).exists()


def test_a_running_execution_that_its_node_has_forgotten_is_lost():
    node, job = rows.node(), rows.job()
    running = rows.execution(job, node, observed=Observed.RUNNING)
    assert desired(node) == {}
    assert state(running) == ("stopped", "lost")
    node.refresh_from_db()
    assert node.allocated_cpu == 0


def test_what_was_stopped_before_anybody_was_told_is_cancelled():
    node, job = rows.node(), rows.job()
    never = rows.execution(job, node, desired=Desired.STOPPED)
    assert desired(node) == {}
    assert state(never) == ("stopped", "cancelled")
    assert never.message == "stopped before its node was told"


def test_an_execution_nobody_knows_is_left_alone_and_written_down_once():
    node = rows.node()
    strangers = {rows.unknown_id() for _ in range(2)}
    for _ in range(3):
        assert desired(node, *((key, Holding.RUNNING) for key in strangers)) == {}
    events = Event.objects.filter(what="unknown-execution", node_id=node.pk)
    assert sorted(event.execution_id for event in events) == sorted(strangers)


def test_what_a_node_holds_of_another_is_stopped_here_and_goes_on_there():
    node, other, job = rows.node(), rows.node(), rows.job()
    foreign = rows.execution(job, other, observed=Observed.RUNNING)
    assert desired(node, (foreign.pk, Holding.RUNNING)) == {str(foreign.pk): Want.STOP}
    assert desired(node, (foreign.pk, Holding.ENDED)) == {}
    assert state(foreign) == ("running", "running")


def test_of_what_is_over_a_node_is_told_nothing():
    node, job = rows.node(), rows.job(count=2)
    over = rows.execution(job, node, observed=Observed.LOST)
    live = rows.execution(job, node, slot=1)
    [told] = compute_forwarder.orders({node.pk: 0})
    assert [order.execution for order in told.orders] == [str(live.pk)]
    assert over.order_rev < live.order_rev == told.order_rev


@pytest.mark.parametrize("ends", [give_up_lost, never_told, reported])
def test_what_has_ended_leaves_the_index_of_the_untold(ends):
    node, job = rows.node(), rows.job()
    ends(node, job)
    execution = Execution.objects.get()
    assert not execution.reserved
    assert execution.told_rev == execution.order_rev


def test_the_orders_of_one_look_are_bounded_and_the_next_look_goes_on_where_it_ended():
    node, job = rows.node(), rows.job(count=BATCH + 3)
    for slot in range(BATCH + 3):
        rows.execution(job, node, slot=slot, cpu=0, memory=0)
    [first] = compute_forwarder.orders({node.pk: 0})
    assert (first.order_rev, len(first.orders)) == (BATCH, BATCH)
    [second] = compute_forwarder.orders({node.pk: first.order_rev})
    assert [order.rev for order in second.orders] == [BATCH + 1, BATCH + 2, BATCH + 3]


def test_a_look_reads_no_more_than_it_tells_however_long_the_backlog_of_a_node():
    """Even where history is so long that the planner expects next to nothing to be in the way."""
    node, job = rows.node(), rows.job(count=MOST_COUNT)
    over = {"observed": "completed", "desired": "stopped", "ended_at": timezone.now()}
    over |= {"settled": True, "reserved": False, "told_rev": 8 * BATCH}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        for number, differing in ((8 * BATCH, over), (2 * BATCH, {})):
            made = (
                Execution(job=job, node=node, version=1, slot=n, **{"order_rev": n + 1} | differing)
                for n in range(number)
            )
            Execution.objects.bulk_create(made, batch_size=1000)
        cursor.execute(
            "INSERT INTO orchestrator_untoldorder (node_id, rev, execution_id) SELECT node_id,"
            " order_rev, id FROM orchestrator_execution WHERE order_rev > told_rev AND reserved"
        )
        cursor.execute("ANALYZE orchestrator_execution, orchestrator_untoldorder")
        before = rows.executions_read()
        [told] = compute_forwarder.orders({node.pk: 0})
        assert (len(told.orders), rows.executions_read() - before) == (BATCH, BATCH)
        transaction.set_rollback(True)


def test_the_answer_for_many_nodes_is_bounded_and_complete_for_each_as_far_as_it_says():
    job, nodes = rows.job(count=30), [rows.node() for _ in range(3)]
    for slot in range(30):
        rows.execution(job, nodes[slot % 3], slot=slot)
    told = {node.pk: 0 for node in nodes}
    got = []
    while found := compute_forwarder.orders(told, at_most=7):
        got += [order for it in found for order in it.orders]
        assert sum(len(it.orders) for it in found) <= 7
        for it in found:
            assert [order.rev for order in it.orders] == list(
                range(told[it.node] + 1, it.order_rev + 1)
            )
            told[it.node] = it.order_rev
    assert len(got) == 30


def test_what_was_told_is_not_waded_through_while_nothing_can_be_vacuumed():
    node, other = rows.node(), rows.node()
    with nothing_is_vacuumed():
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute(
                "INSERT INTO orchestrator_untoldorder (node_id, rev, execution_id)"
                " SELECT %s, rev, gen_random_uuid() FROM generate_series(1, 20000) rev",
                [node.pk],
            )
            cursor.execute("ANALYZE orchestrator_untoldorder")
            cursor.execute("DELETE FROM orchestrator_untoldorder")
            cursor.execute(
                "INSERT INTO orchestrator_untoldorder (node_id, rev, execution_id)"
                " VALUES (%s, 20001, gen_random_uuid())",
                [node.pk],
            )
        asked = [[node.pk, other.pk], [20000, 0]]
        assert pages_read(compute_forwarder._HOP, asked) > 100  # Else this says nothing.
        assert pages_read(compute_forwarder._PROBE, asked) < 10


def test_a_look_at_orders_reads_a_node_once_however_many_it_is_told():
    """There may be thousands of versions of its row."""
    node, job = rows.node(), rows.job(count=BATCH)
    for slot in range(BATCH):
        rows.execution(job, node, slot=slot, cpu=0, memory=0)
    with transaction.atomic():
        before = nodes_looked_up()
        [told] = compute_forwarder.orders({node.pk: 0})
        assert (len(told.orders), nodes_looked_up() - before) == (BATCH, 1)


def nodes_looked_up():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT seq_scan + idx_scan FROM pg_stat_xact_user_tables WHERE relname = 'nodes_node'"
        )
        return cursor.fetchone()[0]


@pytest.mark.parametrize("hops", [True, False])
def test_both_looks_find_the_nodes_that_have_something_untold(hops, monkeypatch):
    monkeypatch.setattr(compute_forwarder._hops, "allows", lambda: hops)
    job, nodes = rows.job(count=2), [rows.node() for _ in range(3)]
    for slot in range(2):
        rows.execution(job, nodes[slot], slot=slot)
    found = compute_forwarder.orders({node.pk: 0 for node in nodes[1:]})
    assert [it.node for it in found] == [nodes[1].pk]


def test_orders_of_many_nodes_take_three_queries(django_assert_max_num_queries):
    job = rows.job(count=20)
    nodes = [rows.node() for _ in range(20)]
    for slot, node in enumerate(nodes):
        rows.execution(job, node, slot=slot)
    with django_assert_max_num_queries(3):
        assert len(compute_forwarder.orders({node.pk: 0 for node in nodes})) == 20


def test_a_node_that_holds_more_than_it_can_name_loses_nothing():
    node, job = rows.node(), rows.job()
    running = rows.execution(job, node, observed=Observed.RUNNING)
    partial = msgspec.structs.replace(hello(), partial=True)
    answer = compute_forwarder.desired(node.pk, partial, 1)
    assert [order.want for order in answer.orders] == [Want.RUN]
    assert state(running) == ("running", "running")
