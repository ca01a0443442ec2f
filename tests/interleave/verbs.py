"""What people, nodes, workers and time do: each verb as one call on a scene."""

from __future__ import annotations

from collections.abc import Callable

from nodes import membership
from nodes.callbacks import Inbound
from nodes.protocol.messages import Happened, Held, Hello, Holding, Report
from nodes.protocol.resources import Resources
from orchestrator import broker, endpoint, spec
from orchestrator.lifecycle import Desired, Observed, want
from orchestrator.models import journal
from orchestrator.planners import compute_forwarder, state_updater
from orchestrator.worker import housekeeping
from tests import rows

from .scenes import Scene

Verb = Callable[[Scene], object]


def hello(*holds: Held, instance: str = "i", run: int = 1) -> Hello:
    return Hello(
        version=1,
        instance=instance,
        run=run,
        ledger="l",
        boot="b",
        resources=Resources(cpu=4000, memory=8 * rows.GIB, disk=100 * rows.GIB),
        attributes={"driver.process": "true", "arch": "x86_64"},
        holds=holds,
    )


def of_job(it: Scene, **differing: object) -> spec.JobSpec:
    return rows.job_spec(**{"name": it.job.name, "count": 2, "approval": "none", **differing})


def report(it: Scene, happened: Happened, **facts: object) -> None:
    said = (Report(str(it.execution.pk), happened, **facts),)
    endpoint.receive([Inbound(it.node.pk, 1, 1, 0, (), said)])


def take_orders(it: Scene) -> None:
    """The node has taken whatever it was told of the execution."""
    execution = it.execution
    states = Desired(execution.desired), Observed(execution.observed)
    wanted = want(*states, reserved=execution.reserved)
    told = ((str(execution.pk), wanted),) if wanted else ()
    endpoint.receive([Inbound(it.node.pk, 1, 1, execution.order_rev, told, ())])


def holding(it: Scene) -> Hello:
    return hello(Held(str(it.execution.pk), Holding.RUNNING))


VERBS: dict[str, Verb] = {
    "submit": lambda it: endpoint.submit(of_job(it, priority=60), actor="user:a"),
    "submit-anew": lambda it: endpoint.submit(
        of_job(it, task={"command": ["false"]}), actor="user:a"
    ),
    "submit-other": lambda it: endpoint.submit(of_job(it, name="k"), actor="user:a"),
    "stop": lambda it: endpoint.stop(it.job.pk, actor="user:a"),
    "rerun": lambda it: endpoint.rerun(it.job.pk, actor="user:a"),
    "evaluate-now": lambda it: broker.evaluate_now(it.job.pk, "user:a"),
    "retry-dead": lambda it: broker.retry_dead(it.job.pk, "user:a"),
    "drop-dead": lambda it: broker.drop_dead(it.job.pk, "user:a"),
    "pause": lambda it: broker.pause("maintenance", "user:a"),
    "lease": lambda it: broker.lease(None, 1, "w3"),
    "plan": lambda it: state_updater.apply([it.decision] if it.decision else []),
    "nack": lambda it: [broker.nack(lease, "failed") for lease in it.leases[:1]],
    "renew": lambda it: broker.renew(it.leases),
    "give-back": lambda it: broker.give_back(["w1"]),
    "sweep": lambda it: broker.sweep(),
    "unblock": lambda it: (broker.capacity_freed([it.node.pk, it.other.pk]), broker.unblock()),
    "wake-overlooked": lambda it: broker.unblock_overlooked(),
    "complete": lambda it: report(it, Happened.COMPLETE, exit_code=0),
    "fail": lambda it: report(it, Happened.FAIL, exit_code=1, code="exit"),
    "bid": lambda it: report(it, Happened.BID),
    "start": lambda it: report(it, Happened.START),
    "cancel": lambda it: report(it, Happened.CANCEL),
    "take-orders": take_orders,
    "orders": lambda it: compute_forwarder.orders({it.node.pk: 0, it.other.pk: 0}),
    "greet": lambda it: membership.greet(it.node.pk, hello(), "web-2", record=journal.record_node),
    "greet-copy": lambda it: membership.greet(
        it.node.pk, hello(instance="copy"), "web-2", record=journal.record_node
    ),
    "desired": lambda it: compute_forwarder.desired(it.node.pk, hello(), 1),
    "desired-holding": lambda it: compute_forwarder.desired(it.node.pk, holding(it), 1),
    "beat": lambda it: membership.beat(
        [membership.Beat(node.pk, 1) for node in (it.other, it.node)]
    ),
    "reconnect": lambda it: endpoint.reconnect({it.node.pk: 1, it.other.pk: 1}),
    "degrade": lambda it: endpoint.degraded(
        {it.other.pk: (1, "its disk is full"), it.node.pk: (1, "its disk is full")}
    ),
    "leave": lambda it: membership.leave(it.node.pk, 1),
    "approve": lambda it: endpoint.approve_node(it.other.pk, actor="user:a"),
    "reject": lambda it: endpoint.reject_node(it.node.pk, actor="user:a"),
    "ineligible": lambda it: endpoint.set_eligible(it.node.pk, False, actor="user:a"),
    "drain": lambda it: endpoint.set_draining(it.node.pk, True, actor="user:a"),
    "release": lambda it: endpoint.release_node(it.node.pk, actor="user:a"),
    "remove": lambda it: endpoint.remove_node(it.node.pk, actor="user:a"),
    "mark-silent": lambda it: housekeeping.mark_silent(),
    "lose-silent": lambda it: endpoint.lose_silent(),
}
