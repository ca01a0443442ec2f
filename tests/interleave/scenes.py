"""Situations in which two verbs may meet, made the same each time, and what there is afterwards."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import connection
from django.db.models import QuerySet
from django.db.models.functions import Now

from nodes.models import Listening, Node, NodeHeartbeat
from orchestrator import broker, endpoint
from orchestrator.broker.leases import MOST_DELIVERIES
from orchestrator.endpoint import node_journal
from orchestrator.lifecycle import Observed, Trigger
from orchestrator.models import BrokerRow, ClusterSetting, Execution, Job
from orchestrator.planners import state_updater
from orchestrator.planners.state_updater import Decision
from orchestrator.scheduling.slot_scheduler import schedule
from orchestrator.worker import snapshot
from tests import rows

#: Longer than a scene is tried: what is to happen later does not happen meanwhile.
LONG = timedelta(hours=1)
#: As far ahead as the clock may be set back unnoticed.
SOON = timedelta(seconds=2)


class Scene:
    """Two nodes and a job of two slots without approval; what differs is up to each scene.

    ``execution`` is what reports speak of.  ``decision`` is a plan that waits to be written, if
    any; ``leases`` are all that were lent.
    """

    def __init__(self, **job: Any) -> None:
        clear()
        ClusterSetting.objects.create(pk=1)
        # Of equal nodes the id decides.
        self.node = rows.node(id=UUID(int=1), name="n1")
        self.other = rows.node(id=UUID(int=2), name="n2")
        for who in ("detector", "ears"):
            Listening.objects.create(who=who, since=Now() - 2 * LONG, at=Now())
        nobody_is_silent(NodeHeartbeat.objects.all())
        self.job = rows.job(**{"name": "j", "count": 2, "approval": "none", **job})
        self.execution: Execution | None = None
        self.decision: Decision | None = None
        self.leases: list[broker.Lease] = []

    def on(self, node: Node, **differing: Any) -> Execution:
        return rows.execution(self.job, node, **differing)

    def lend(self, worker: str = "w1") -> broker.Lease:
        broker.enqueue(self.job.pk, Trigger.JOB_SUBMIT)
        (lease,) = broker.lease(None, 1, worker, LONG.total_seconds())
        self.leases.append(lease)
        return lease

    def plan(self, lease: broker.Lease | None = None) -> Decision:
        lease = lease or self.lend()
        (world,) = snapshot.worlds([lease], snapshot.ClusterView().refresh())
        self.decision = Decision(lease, world, schedule(world))
        return self.decision


def one_of_two_runs() -> Scene:
    it = Scene()
    it.execution = it.on(it.node, observed=Observed.RUNNING)
    it.plan()
    return it


def a_bid_waits_for_approval() -> Scene:
    it = Scene(count=1, approval="bid")
    it.execution = it.on(it.node, observed=Observed.ASK_FOR_BID_ACCEPTED)
    assert it.plan().plan.approve
    return it


def two_bids_for_one_slot() -> Scene:
    it = Scene(count=1, approval="bid", ask=2)
    it.execution = it.on(it.node, observed=Observed.ASK_FOR_BID_ACCEPTED)
    it.on(it.other, observed=Observed.ASK_FOR_BID_ACCEPTED)
    plan = it.plan().plan
    assert plan.approve
    assert plan.stop
    return it


def one_is_to_be_settled_and_one_placed() -> Scene:
    it = Scene(count=3)
    ended = it.on(it.node, observed=Observed.COMPLETED)
    Node.objects.filter(pk=it.node.pk).update(allocated_cpu=0, allocated_memory=0)
    Execution.objects.filter(pk=ended.pk).update(reserved=False)
    it.execution = it.on(it.node, slot=1, observed=Observed.RUNNING)
    plan = it.plan().plan
    assert plan.settle
    assert plan.place
    return it


def a_lost_node_comes_back() -> Scene:
    it = Scene(retry={"delay": "1h", "max_delay": "1h"})
    it.execution = it.on(it.node, observed=Observed.RUNNING)
    it.on(it.other, slot=1, observed=Observed.RUNNING)
    rows.lose(it.node)
    assert it.plan().plan.settle
    return it


def a_silent_node_has_work() -> Scene:
    it = Scene()
    it.execution = it.on(it.node, observed=Observed.RUNNING)
    Node.objects.filter(pk=it.node.pk).update(connection="disconnected")
    NodeHeartbeat.objects.filter(node=it.node).update(seen_at=Now() - LONG)
    it.plan()
    return it


def a_node_is_lost_and_its_work_not_yet() -> Scene:
    """Whoever marked it has died right after."""
    it = Scene()
    it.execution = it.on(it.node, observed=Observed.RUNNING)
    for state in ("disconnected", "lost"):
        Node.objects.filter(pk=it.node.pk).update(connection=state)
    it.plan()
    return it


def a_lease_was_taken_over() -> Scene:
    """The plan is of a worker whose lease ended; another has the job now."""
    it = Scene()
    it.execution = it.on(it.node, observed=Observed.RUNNING)
    it.plan(it.lend())
    BrokerRow.objects.update(leased_until=Now() - timedelta(minutes=1))
    broker.sweep()
    it.lend("w2")
    return it


def a_lease_has_ended() -> Scene:
    """As long as nobody takes it over its plan may still be written."""
    it = one_of_two_runs()
    BrokerRow.objects.update(leased_until=Now() - timedelta(minutes=1))
    return it


def a_full_cluster() -> Scene:
    """One job fills it; another is about to be blocked, a third is blocked already."""
    task = {"resources": {"cpu": 4, "memory": "64MiB"}}
    it = Scene(name="full", count=1, task=task)
    it.execution = it.on(it.node, observed=Observed.RUNNING, cpu=4000)
    Node.objects.filter(pk=it.other.pk).update(eligible=False)
    waits = {"count": 1, "approval": "none", "task": task}
    it.job = rows.job(name="blocked", **waits)
    state_updater.apply([it.plan()])
    it.job = rows.job(name="j", **waits)
    assert it.plan().plan.blocked
    it.job = Job.objects.get(name="full")
    return it


def an_ended_job_is_run_again() -> Scene:
    it = Scene(count=1)
    it.execution = it.on(it.node, observed=Observed.RUNNING)
    rows.move(it.execution, Observed.COMPLETED)
    Node.objects.filter(pk=it.node.pk).update(allocated_cpu=0, allocated_memory=0)
    Execution.objects.filter(pk=it.execution.pk).update(reserved=False)
    state_updater.apply([it.plan()])
    endpoint.rerun(it.job.pk, actor="user:a")
    assert it.plan().plan.place
    return it


def a_job_is_being_stopped() -> Scene:
    it = Scene()
    it.execution = it.on(it.node, observed=Observed.RUNNING)
    it.on(it.other, slot=1, observed=Observed.ASK_FOR_BID)
    endpoint.stop(it.job.pk, actor="user:a")
    assert len(it.plan().plan.stop) == 2
    return it


def a_dead_letter_and_nodes_to_be_judged() -> Scene:
    """One is pending, the other in quarantine."""
    it = Scene(count=1, approval="bid")
    it.other = rows.node(name="n3", approval="pending")
    it.execution = it.on(it.node, observed=Observed.ASK_FOR_BID)
    Node.objects.filter(pk=it.node.pk).update(quarantined="copied", connection="disconnected")
    lease = it.lend()
    it.plan(lease)  # It comes too late.
    BrokerRow.objects.update(deliveries=MOST_DELIVERIES)
    broker.nack(lease, "poison")
    return it


SCENES: dict[str, Callable[[], Scene]] = {
    scene.__name__: scene
    for scene in (
        one_of_two_runs,
        a_bid_waits_for_approval,
        two_bids_for_one_slot,
        one_is_to_be_settled_and_one_placed,
        a_lost_node_comes_back,
        a_silent_node_has_work,
        a_node_is_lost_and_its_work_not_yet,
        a_lease_was_taken_over,
        a_lease_has_ended,
        a_full_cluster,
        an_ended_job_is_run_again,
        a_job_is_being_stopped,
        a_dead_letter_and_nodes_to_be_judged,
    )
}


def nobody_is_silent(of: QuerySet[NodeHeartbeat]) -> None:
    """Those nodes, and who listens to them, were heard of just now, however long it was tried."""
    of.update(seen_at=Now() + SOON)
    Listening.objects.update(at=Now() + SOON)


class Stage:
    """A scene, and its rows as they were when it was made, as often as they are asked for."""

    def __init__(self, name: str) -> None:
        self._scene = SCENES[name]()
        _execute(
            "DROP SCHEMA IF EXISTS saved CASCADE",
            "CREATE SCHEMA saved",
            *(f"CREATE TABLE saved.{table} AS TABLE public.{table}" for table in _tables()),
        )

    def scene(self) -> Scene:
        """The scene, with everything in the database as it was."""
        clear()
        _execute(
            "SET session_replication_role = replica",
            *(f"INSERT INTO {table} SELECT * FROM saved.{table}" for table in _tables()),
            "SET session_replication_role = DEFAULT",
        )
        nobody_is_silent(NodeHeartbeat.objects.filter(seen_at__gt=Now() - LONG / 2))
        return self._scene


def clear() -> None:
    """Empty every table of ours, and what this process has counted of their rows."""
    node_journal._writers.clear()
    _execute(
        "SET session_replication_role = replica",
        *(f"DELETE FROM {table}" for table in _tables()),
        "SET session_replication_role = DEFAULT",
    )


def _tables() -> list[str]:
    return [
        model._meta.db_table
        for app in ("nodes", "orchestrator")
        for model in apps.get_app_config(app).get_models()
        if model._meta.managed
    ]


def _execute(*statements: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("; ".join(statements))


#: What there is after two verbs, without what each run has of its own (ids, times), and without
#: who holds a lease: a row that somebody holds is passed over, which is no lost evaluation.
_STATE = {
    "jobs": "SELECT name, state, version, round, stop_requested, priority FROM orchestrator_job",
    "executions": """
        SELECT j.name, e.slot, e.version, e.round, e.attempt, e.desired, e.observed, e.reserved,
               e.settled, n.name, e.rev
        FROM orchestrator_execution e JOIN orchestrator_job j ON j.id = e.job_id
        JOIN nodes_node n ON n.id = e.node_id""",
    "history": """
        SELECT j.name, e.slot, h.lane, h.before, h.after, h.writer, count(*)
        FROM orchestrator_executionhistory h JOIN orchestrator_execution e ON e.id = h.execution_id
        JOIN orchestrator_job j ON j.id = e.job_id GROUP BY 1, 2, 3, 4, 5, 6""",
    "nodes": """
        SELECT name, approval, connection, eligible, draining, quarantined, degraded, allocated_cpu,
               capacity_cpu, s.epoch, s.received, removed_at IS NOT NULL
        FROM nodes_node n JOIN nodes_nodesession s ON s.node_id = n.id""",
    "queue": """
        SELECT j.name,
               EXISTS (SELECT FROM orchestrator_brokertrigger t WHERE t.job_id = j.id)
                   OR coalesce(r.dead_letter IS NULL, false) AS owed,
               r.dead_letter IS NOT NULL,
               EXISTS (SELECT FROM orchestrator_blockedjob b WHERE b.job_id = j.id)
        FROM orchestrator_job j LEFT JOIN orchestrator_brokerrow r ON r.job_id = j.id""",
    "journal": "SELECT topic, what, actor, count(*) FROM orchestrator_event GROUP BY 1, 2, 3",
}


def state() -> dict[str, list[str]]:
    """Everything that two runs of the same verbs, in the same order, have in common."""
    found = {}
    with connection.cursor() as cursor:
        for name, query in _STATE.items():
            cursor.execute(query)
            found[name] = sorted(map(str, cursor.fetchall()))
    return found
