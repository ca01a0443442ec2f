"""Rows to worlds: true, bounded, and not growing with history."""

from dataclasses import replace

import pytest
from django.db import connection, transaction

from nodes.models import Node
from nodes.protocol.resources import Resources
from orchestrator import broker, endpoint
from orchestrator.broker.blocked import room_since
from orchestrator.lifecycle import JobType, Observed, Trigger
from orchestrator.models import Execution
from orchestrator.scheduling.feasibility import demand
from orchestrator.scheduling.placement_record import record
from orchestrator.scheduling.running import one_by_one
from orchestrator.scheduling.world import Room
from orchestrator.worker import executions, snapshot
from tests import rows
from tests.pages import nothing_is_vacuumed, pages_read
from tests.sessions import open_transaction

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
    assert view.refresh().nodes.ready.tolist() == [True]
    Node.objects.filter(pk=node.pk).update(**{column: value})
    cluster = view.refresh()
    assert (cluster.nodes.ready.tolist(), list(cluster.nodes.unready)) == ([False], [why])


def test_a_node_is_selected_by_what_it_was_given_its_registered_name_and_its_own_word():
    rows.node(labels={"arch": "given", "name": "not this"}, name="here")
    [labels] = snapshot.ClusterView().refresh().nodes.labels
    own = {"node.arch": "x86_64", "node.driver.process": "true"}
    assert labels == {"arch": "given", "name": "here", **own}


def test_settled_executions_are_not_read():
    node, job = rows.node(), rows.job(count=3)
    for slot in range(2):
        rows.execution(job, node, slot=slot, observed=Observed.COMPLETED)
    Execution.objects.filter(job=job).update(settled=True)
    live = rows.execution(job, node, slot=2)
    [world] = snapshot.worlds(lease(job), snapshot.ClusterView().refresh())
    assert [it.id for it in world.executions] == [str(live.pk)]


def test_what_lives_is_looked_up_by_id_however_many_the_planner_expects():
    """Else it would read all history at times, as it plans for any job."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_nestloop = off; SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {executions._OF_JOBS}", [[rows.unknown_id()]])
        plan = " ".join(line for (line,) in cursor.fetchall())
    assert "Nested Loop" in plan
    assert "Index Cond: (id = l.execution_id)" in plan


def test_what_runs_as_told_in_a_large_job_is_read_in_columns_and_nothing_else(monkeypatch):
    node, job = rows.node(cpu=64_000), rows.job(count=executions.MANY)
    for slot, observed in enumerate([*["running"] * 3, "new", "completed", "lost", "publishing"]):
        rows.execution(job, node, slot=slot, observed=observed)
    rows.execution(job, rows.node(), slot=7, observed="running", cpu=0, memory=0)
    rows.execution(job, node, slot=8, observed="running", generation="another")
    rows.execution(job, node, slot=9, observed="running", round=2)
    leases = lease(job)
    cluster = snapshot.ClusterView().refresh()
    cluster = Room(replace(cluster.nodes, ids=[str(node.pk)]), cluster.allocated)
    [world] = snapshot.worlds(leases, cluster)
    assert sorted(world.running.slots.tolist()) == [0, 1, 2, 7]
    assert {it.slot for it in world.executions} == {3, 4, 5, 6, 8, 9}
    of = dict(zip(world.running.slots.tolist(), world.running.nodes.tolist(), strict=True))
    assert of == {0: 0, 1: 0, 2: 0, 7: -1}
    monkeypatch.setattr(executions, "MANY", executions.MANY + 1)
    [one_after_the_other] = snapshot.worlds(leases, cluster)
    assert len(one_after_the_other.running) == 0
    assert one_by_one(world).executions == one_after_the_other.executions


def test_in_columns_is_what_runs_a_version_that_runs_the_same():
    node, nodes = rows.node(cpu=64_000), snapshot.ClusterView().refresh().nodes

    def then(**differing):
        """Submit it so, and have one more of it run; what is in columns, and what is not."""
        spec = rows.job_spec(name="rolled", count=executions.MANY, **differing)
        job = endpoint.submit(spec, actor="user:ana").job
        rows.execution(job, node, slot=job.version, observed="running")
        [found] = executions.unsettled(snapshot._jobs([job.pk]), nodes).values()
        return set(found.running.slots.tolist()), {it.slot for it in found.views}

    assert then() == ({1}, set())
    assert then(timeouts={"execution": "1h"}) == ({1, 2}, set())
    assert then(task={"command": ["false"]}) == ({3}, {1, 2})
    assert then() == ({4}, {1, 2, 3}), "that is another round"


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


def test_a_group_of_large_jobs_that_run_several_versions_is_read_with_as_few(
    django_assert_max_num_queries,
):
    node, jobs = rows.node(cpu=64_000), []
    for name in ("one", "two", "three"):
        for limit in ("1h", "2h"):
            differing = {"count": executions.MANY, "timeouts": {"execution": limit}}
            spec = rows.job_spec(name=name, **differing)
            job = endpoint.submit(spec, actor="user:ana").job
            rows.execution(job, node, slot=job.version, observed="running")
        jobs.append(job)
    leases, cluster = lease(*jobs), snapshot.ClusterView().refresh()
    with django_assert_max_num_queries(6):
        worlds = snapshot.worlds(leases, cluster)
    assert [len(world.running) for world in worlds] == [2, 2, 2]


def test_a_removed_node_leaves_the_view_at_the_next_look():
    gone, stays = rows.node(), rows.node()
    view = snapshot.ClusterView()
    assert set(view.refresh().nodes.ids) == {str(gone.pk), str(stays.pk)}
    endpoint.remove_node(gone.pk, actor="user:ada")
    assert view.refresh().nodes.ids == (str(stays.pk),)
    assert view.refresh().nodes.ids == (str(stays.pk),)
    assert snapshot.ClusterView().refresh().nodes.ids == (str(stays.pk),)


def test_no_node_is_read_twice_while_somebody_keeps_a_transaction_open():
    def stranger():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()")

    view = snapshot.ClusterView()
    with open_transaction(stranger):
        node = rows.node(cpu=1000)
        assert [row["id"] for row in view._read()] == [str(node.pk)]
        assert view._read() == []
        rows.execution(rows.job(), node, cpu=600)
        assert [row["allocated_cpu"] for row in view._read()] == [600]


def test_what_is_committed_late_is_read_then():
    node = rows.node(cpu=1000)
    view = snapshot.ClusterView()
    with open_transaction(lambda: Node.objects.filter(pk=node.pk).update(allocated_cpu=100)):
        rows.node()
        assert min(view.refresh().free[:, 0]) == 1000
    assert 900 in view.refresh().free[:, 0]


def test_the_view_of_a_cluster_whose_last_node_was_removed_is_empty():
    node = rows.node()
    view = snapshot.ClusterView()
    view.refresh()
    endpoint.remove_node(node.pk, actor="user:ada")
    assert view.refresh().nodes.ids == ()


def test_nodes_of_which_only_amounts_change_are_the_same_for_whoever_reads_them():
    node = rows.node(cpu=1000)
    view = snapshot.ClusterView()
    nodes = view.refresh().nodes
    rows.execution(rows.job(), node, cpu=600)
    room = view.refresh()
    assert (room.nodes is nodes, room.free[0][0]) == (True, 400)
    rows.node()
    assert view.refresh().nodes is not nodes
    assert len(nodes.ids) == 1


def test_a_group_of_large_jobs_is_read_with_a_handful_of_queries(django_assert_max_num_queries):
    leases = lease(*(rows.job(count=executions.MANY) for _ in range(25)))
    cluster = snapshot.ClusterView().refresh()
    with django_assert_max_num_queries(5):
        snapshot.worlds(leases, cluster)


def stranger():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()")


def test_nodes_that_the_view_has_seen_are_no_news_while_somebody_keeps_a_transaction_open():
    """Else each group of plans that blocks reads all of them again for as long as a dump takes."""
    with open_transaction(stranger):
        rows.node(cpu=1000)
        seen = snapshot.ClusterView().refresh()
        assert room_since(seen.revision, Resources(cpu=1)) == []


def test_what_changed_lately_is_read_without_its_earlier_versions():
    """They all lie in the index while somebody keeps a transaction open."""
    with nothing_is_vacuumed():
        node, view = rows.node(cpu=1000), snapshot.ClusterView()
        for allocated in range(300):
            Node.objects.filter(pk=node.pk).update(allocated_cpu=allocated)
            if allocated == 298:
                view.refresh()
        asked = {"seen": view._seen, "with_removed": True}
        assert pages_read(snapshot._NODES, asked) < 20
        assert [row["allocated_cpu"] for row in view._read()] == [299]


def test_the_record_of_a_placement_is_of_the_room_that_there_is_now():
    """Also where as much was freed here as was taken there while something else was open."""
    wanted = demand(rows.job_spec(task={"resources": {"cpu": 0.8}}))
    with open_transaction(stranger):
        nodes, view = [rows.node(cpu=1000, name=name) for name in "ab"], snapshot.ClusterView()
        for full in nodes:
            Node.objects.exclude(pk=full.pk).update(allocated_cpu=0)
            Node.objects.filter(pk=full.pk).update(allocated_cpu=600)
            made = record(view.refresh(), wanted)
            assert [it["name"] for it in made["nearest"]] == [full.name]
