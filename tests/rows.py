"""Rows for tests: each call says only what differs from the ordinary."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from nodes.models import Node, NodeHeartbeat, NodeSession
from nodes.protocol.resources import DIMENSIONS, Resources
from orchestrator import broker, spec
from orchestrator.broker import Waits
from orchestrator.endpoint.lost_nodes import lose_silent
from orchestrator.explain.reasons import NoRoom, Shortage
from orchestrator.lifecycle import OBSERVED, Desired, Observed, Trigger, Writer, path
from orchestrator.models import (
    BlockedClass,
    BlockedJob,
    BrokerDue,
    BrokerRow,
    BrokerTrigger,
    Execution,
    Job,
    JobVersion,
    Namespace,
    RoleBinding,
)
from orchestrator.planners.transitions import Observation, Wish, desire, lock_executions, observe

_numbers = itertools.count(1)

GIB = 2**30


def user(name: str, role: str = "", namespace: str | None = None, **flags: Any) -> User:
    """Somebody with *role*: in *namespace*, which is made if it is not there, or in all."""
    row = User.objects.create_user(name, **flags)
    if role:
        give(row, role, namespace)
    return row


def give(to: User, role: str, namespace: str | None = None) -> None:
    if namespace is not None:
        Namespace.objects.get_or_create(pk=namespace)
    RoleBinding.objects.create(user=to, role=role, namespace_id=namespace)


def job_spec(**differing: Any) -> spec.JobSpec:
    """A specification of one slot that runs ``true``."""
    task = {"command": ["true"], **differing.pop("task", {})}
    ordinary = {"name": f"job-{next(_numbers)}", "type": "batch", "task": task}
    return spec.parse({**ordinary, **differing})


def job(**differing: Any) -> Job:
    """A stored job with its first version, nobody having asked for its evaluation."""
    columns = {key: differing.pop(key) for key in ("state", "progress") if key in differing}
    owner = differing.pop("created_by", None)
    it = job_spec(**differing)
    place, _ = Namespace.objects.get_or_create(pk=it.namespace or "default")
    row = Job.objects.create(
        name=it.name,
        namespace=place,
        type=it.type,
        priority=it.priority,
        count=it.count,
        created_by=owner,
    )
    JobVersion.objects.create(
        job=row,
        number=1,
        spec=spec.body(it),
        digest=spec.digest(it),
        generation=spec.generation(it),
        actor="test",
    )
    if columns:  # A job begins pending and goes on from there.
        Job.objects.filter(pk=row.pk).update(**columns)
        row.refresh_from_db()
    return row


def submitted(**differing: Any) -> Job:
    """A stored job whose evaluation was asked for."""
    row = job(**differing)
    broker.enqueue(row.pk, Trigger.JOB_SUBMIT)
    return row


def version(of: Job, stored: Any, *, actor: str = "test") -> JobVersion:
    """The next version of a job, its specification being whatever *stored* is."""
    row = JobVersion.objects.create(
        job=of, number=of.version + 1, spec=stored, digest="", actor=actor
    )
    Job.objects.filter(pk=of.pk).update(version=row.number)
    of.refresh_from_db()
    return row


def node(**differing: Any) -> Node:
    """An approved, connected node of 4 cores and 8 GiB, in session epoch 1."""
    cpu, memory = differing.pop("cpu", 4000), differing.pop("memory", 8 * GIB)
    ordinary: dict[str, Any] = {
        "name": f"node-{next(_numbers)}",
        "approval": "approved",
        "connection": "connected",
        "attributes": {"node.driver.process": "true", "node.arch": "x86_64"},
        "capacity_cpu": cpu,
        "advertised_cpu": cpu,
        "capacity_memory": memory,
        "advertised_memory": memory,
        "capacity_disk": 100 * GIB,
        "advertised_disk": 100 * GIB,
    }
    row = Node.objects.create(**{**ordinary, **differing})
    NodeSession.objects.create(node=row, epoch=1)
    NodeHeartbeat.objects.create(node=row, seen_at=Now())
    return row


def execution(of: Job, on: Node, **differing: Any) -> Execution:
    """An execution as the StateUpdater would create it, walked to ``observed`` by legal moves."""
    observed = Observed(differing.pop("observed", Observed.NEW))
    stopped = differing.pop("desired", None) == Desired.STOPPED
    need = {"cpu": 100, "memory": 64 * 2**20, "disk": 0, "gpu": 0}
    need |= {it: differing.pop(it) for it in DIMENSIONS if it in differing}
    on.refresh_from_db()
    made_from = JobVersion.objects.filter(job=of, number=of.version)
    generation = made_from.values_list("generation", flat=True).get()
    row = Execution.objects.create(
        **{
            "job": of,
            "node": on,
            "version": of.version,
            "generation": generation,
            "round": of.round,
            "slot": 0,
            "order_rev": on.order_rev + 1,
            **need,
            "by_writer": Writer.STATE_UPDATER,
            "by_reason": "placed",
            **differing,
        }
    )
    lock_executions([row.pk])  # First, where the caller has one transaction for all of it.
    Node.objects.filter(pk=on.pk).update(
        order_rev=row.order_rev,
        **{f"allocated_{it}": getattr(on, f"allocated_{it}") + need[it] for it in DIMENSIONS},
    )
    move(row, observed)
    if stopped:
        row.refresh_from_db()
        wish(row, Desired.STOPPED)
    row.refresh_from_db()
    on.refresh_from_db()
    return row


def move(row: Execution, to: Observed) -> None:
    """Walk the observed lane of *row* to *to*, approving it where the way leads there."""
    for event in _way(Observed(row.observed), to):
        row.refresh_from_db()
        before = Observed(row.observed)
        if event == "accept" and row.desired == Desired.PENDING:
            wish(row, Desired.RUNNING)
        after = OBSERVED.after(before, event)
        forwarded = event in ("ask", "accept", "reject")
        observe(
            [
                Observation(
                    execution=row.pk,
                    before=before,
                    after=after,
                    writer=Writer.COMPUTE_FORWARDER if forwarded else Writer.ENDPOINT,
                    releases=False,
                )
            ]
        )
    row.refresh_from_db()


def wish(row: Execution, after: Desired, cause: str = "") -> None:
    """Move the desired lane of *row*, as the node's next order."""
    lock_executions([row.pk])
    on = Node.objects.get(pk=row.node_id)
    Node.objects.filter(pk=on.pk).update(order_rev=on.order_rev + 1)
    desire([Wish(row.pk, Desired(row.desired), after, on.order_rev + 1, "test", cause)])
    row.refresh_from_db()


def made(of: Job, at: datetime) -> None:
    """Have *of* been made at another time."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET LOCAL session_replication_role = replica")
        Job.objects.filter(pk=of.pk).update(created_at=at)
        cursor.execute("SET LOCAL session_replication_role = origin")


def lose(of: Node) -> None:
    """Give up node *of*, and what is live there."""
    for state in ("disconnected", "lost"):
        Node.objects.filter(pk=of.pk).update(connection=state)
    lose_silent()


def _way(start: Observed, to: Observed) -> tuple[str, ...]:
    if start is to:
        return ()
    for event in {event for _, event, after in OBSERVED.edges() if after is to}:
        way = path(start, event)
        if way is not None and _ends(start, way) is to:
            return way
    raise AssertionError(f"no way from {start} to {to}")


def _ends(state: Observed, way: tuple[str, ...]) -> Observed:
    for event in way:
        state = OBSERVED.after(state, event)
    return state


def asked(of: Job, since: datetime | None = None) -> BrokerTrigger:
    """*of* is ready."""
    return BrokerTrigger.objects.create(
        job=of,
        urgency=-of.priority,
        namespace=of.namespace_id,
        type=of.type,
        trigger=Trigger.JOB_SUBMIT.value,
        **({} if since is None else {"since": since}),
    )


def leased(of: Job, worker: str = "w", **differing: Any) -> BrokerRow:
    """A worker evaluates *of*."""
    until = timezone.now() + timedelta(minutes=1)
    lent = {"type": of.type, "evaluation_id": 1, "worker": worker, "leased_until": until}
    return BrokerRow.objects.create(job=of, **{**lent, **differing})


def dead_letter(of: Job, error: str = "it broke", **differing: Any) -> BrokerRow:
    """*of* is parked."""
    parked = {"evaluation_id": 1, "deliveries": 5, "priority": of.priority, "type": of.type}
    return BrokerRow.objects.create(job=of, **{**parked, "dead_letter": error, **differing})


def due(of: Job, at: datetime, trigger: Trigger = Trigger.RETRY) -> BrokerDue:
    """*of* is looked at *at* that time."""
    return BrokerDue.objects.create(job=of, at=at, trigger=trigger.value)


def blocked(
    of: Job, why: Shortage | None = None, need: Resources | None = None, **differing: Any
) -> BlockedJob:
    """There is no room for *of*; *why* tells classes apart."""
    waits = Waits(need or Resources(cpu=1000), where=(repr(why),), why=why or NoRoom(1))
    kept = {name: waits.dump()[name] for name in ("need", "where", "why", "impossible")}
    kind, _ = BlockedClass.objects.get_or_create(digest=waits.digest, defaults=kept)
    held = {"urgency": -of.priority, "blocked_class": kind}
    return BlockedJob.objects.create(job=of, **{**held, **differing})


def unknown_id() -> UUID:
    """An id that nothing has."""
    return UUID(int=next(_numbers))


def executions_read() -> int:
    """How many rows of executions have been read so far: within one transaction, compare."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables"
            " WHERE relname = 'orchestrator_execution'"
        )
        return int(cursor.fetchone()[0])
