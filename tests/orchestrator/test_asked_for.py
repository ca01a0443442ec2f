"""Every verb of the Endpoint, and the evaluations that it must ask for."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import pytest

from nodes.callbacks import Inbound
from nodes.models import Node
from nodes.protocol.messages import Happened, Report, Want
from orchestrator import endpoint
from orchestrator.endpoint import finding
from orchestrator.lifecycle import Observed, Trigger
from orchestrator.models import BrokerTrigger, Execution, FreedNode, Job, Namespace
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)

WHO = "user:ana"


class Scene:
    """A job, "a", that has one execution on the one node."""

    def __init__(self, observed: Observed, **of_node: object) -> None:
        self.spec = rows.job_spec(name="a")
        self.node = rows.node(name="n", **of_node)
        self.job = endpoint.submit(self.spec, actor=WHO).job
        self.execution = rows.execution(self.job, self.node, observed=observed)
        self.forget()

    def forget(self) -> None:
        """All that was asked for."""
        BrokerTrigger.objects.all().delete()
        FreedNode.objects.all().delete()

    def again(self, **differing: object) -> object:
        return rows.job_spec(name="a", **differing)

    def report(self, happened: Happened, seq: int = 1) -> None:
        said = (Report(str(self.execution.pk), happened),)
        endpoint.receive([Inbound(self.node.pk, 1, seq, 0, (), said)])

    def takes(self, want: Want) -> None:
        execution = Execution.objects.get()
        told = ((str(execution.pk), want),)
        endpoint.receive([Inbound(self.node.pk, 1, 1, execution.order_rev, told, ())])

    def lost(self) -> None:
        rows.lose(self.node)
        self.forget()

    def asked(self) -> Counter[tuple[str, Trigger]]:
        """What was asked for: an evaluation of a job, or a look at whom a node's room serves."""
        found = BrokerTrigger.objects.values_list("job__name", "trigger")
        freed = Counter(("n", Trigger.CAPACITY) for _ in FreedNode.objects.all())
        return freed + Counter((name, Trigger(trigger)) for name, trigger in found)


class Row(NamedTuple):
    verb: str
    when: str
    call: Callable[[Scene], object]
    asks: set[tuple[str, Trigger]] = frozenset()
    observed: Observed = Observed.RUNNING
    of_node: dict[str, object] = {}
    before: Callable[[Scene], object] = lambda _: None


ROOM = ("n", Trigger.CAPACITY)
UPDATE, FAILED = ("a", Trigger.EXECUTION_UPDATE), ("a", Trigger.EXECUTION_FAILED)
LOST = ("a", Trigger.NODE_LOST)
MADE, CHANGED = ("b", Trigger.JOB_SUBMIT), ("a", Trigger.JOB_UPDATE)

REPORTED = {
    Happened.BID: (Observed.ASK_FOR_BID, {UPDATE}),
    Happened.DECLINE: (Observed.ASK_FOR_BID, {FAILED, ROOM}),
    Happened.PREPARE: (Observed.BID_ACCEPTED, {UPDATE}),
    Happened.START: (Observed.BID_ACCEPTED, {UPDATE}),
    Happened.PUBLISH: (Observed.RUNNING, {UPDATE}),
    Happened.COMPLETE: (Observed.RUNNING, {UPDATE, ROOM}),
    Happened.FAIL: (Observed.RUNNING, {FAILED, ROOM}),
    Happened.CANCEL: (Observed.RUNNING, {UPDATE, ROOM}),
}

TABLE = (
    Row(
        "submit",
        "of a new job",
        lambda it: endpoint.submit(rows.job_spec(name="b"), actor=WHO),
        {MADE},
    ),
    Row(
        "submit",
        "of a version that replaces what runs",
        lambda it: endpoint.submit(it.again(task={"command": ["false"]}), actor=WHO),
        {CHANGED},
    ),
    Row(
        "submit",
        "of a version that goes on with what runs",
        lambda it: endpoint.submit(it.again(count=2), actor=WHO),
        {CHANGED},
    ),
    Row("submit", "of what is there", lambda it: endpoint.submit(it.spec, actor=WHO)),
    Row(
        "submit",
        "of what is there and was stopped",
        lambda it: endpoint.submit(it.spec, actor=WHO),
        {("a", Trigger.JOB_RERUN), ("a", Trigger.JOB_STOP)},
        before=lambda it: endpoint.stop(it.job.pk, actor=WHO),
    ),
    Row(
        "submit_many",
        "of one that is new and one that is changed",
        lambda it: endpoint.submit_many(
            [rows.job_spec(name="b"), it.again(priority=60)], actor=WHO
        ),
        {MADE, CHANGED},
    ),
    Row(
        "stop",
        "of what runs",
        lambda it: endpoint.stop(it.job.pk, actor=WHO),
        {("a", Trigger.JOB_STOP)},
    ),
    Row(
        "stop",
        "of what has ended",
        lambda it: endpoint.stop(it.job.pk, actor=WHO),
        before=lambda it: Job.objects.update(state="completed"),
    ),
    Row(
        "rerun",
        "of what runs",
        lambda it: endpoint.rerun(it.job.pk, actor=WHO),
        {("a", Trigger.JOB_RERUN)},
    ),
    Row("approve_node", "", lambda it: endpoint.approve_node(it.node.pk, actor=WHO), {ROOM}),
    Row(
        "label_node",
        "with another label",
        lambda it: endpoint.label_node(it.node.pk, {"pool": "a"}, actor=WHO),
        {ROOM},
    ),
    Row(
        "label_node",
        "with what it has",
        lambda it: endpoint.label_node(it.node.pk, {"pool": None}, actor=WHO),
    ),
    Row("reject_node", "", lambda it: endpoint.reject_node(it.node.pk, actor=WHO), {ROOM, LOST}),
    Row(
        "set_eligible",
        "for new work",
        lambda it: endpoint.set_eligible(it.node.pk, True, actor=WHO),
        {ROOM},
        of_node={"eligible": False},
    ),
    Row(
        "set_draining",
        "to an end",
        lambda it: endpoint.set_draining(it.node.pk, False, actor=WHO),
        {ROOM},
        of_node={"draining": True},
    ),
    Row(
        "release_node",
        "from its quarantine",
        lambda it: endpoint.release_node(it.node.pk, actor=WHO),
        {ROOM},
        of_node={"quarantined": "copied"},
    ),
    Row("release_node", "from none", lambda it: endpoint.release_node(it.node.pk, actor=WHO)),
    Row(
        "remove_node",
        "that is lost",
        lambda it: endpoint.remove_node(it.node.pk, actor=WHO),
        {LOST, ROOM},  # Nobody is placed on what is removed: the room is found to be none.
        before=Scene.lost,
    ),
    Row(
        "lose_silent",
        "",
        lambda it: endpoint.lose_silent(),
        {LOST},
        before=lambda it: [
            Node.objects.update(connection=state) for state in ("disconnected", "lost")
        ],
    ),
    Row("lose_silent", "of none", lambda it: endpoint.lose_silent()),
    Row(
        "reconnect",
        "after a silence",
        lambda it: endpoint.reconnect({it.node.pk: 1}),
        {ROOM},
        before=lambda it: Node.objects.update(connection="disconnected"),
    ),
    Row("reconnect", "without one", lambda it: endpoint.reconnect({it.node.pk: 1})),
    Row("degraded", "", lambda it: endpoint.degraded({it.node.pk: (1, "its disk is full")})),
    Row(
        "degraded",
        "no more",
        lambda it: endpoint.degraded({it.node.pk: (1, "")}),
        {ROOM},
        of_node={"degraded": "its disk is full"},
    ),
    Row("create_namespace", "", lambda _: endpoint.create_namespace("new", actor=WHO)),
    Row(
        "delete_namespace",
        "",
        lambda _: endpoint.delete_namespace("empty", actor=WHO),
        before=lambda _: Namespace.objects.create(pk="empty"),
    ),
    Row("set_algorithm", "", lambda it: endpoint.set_algorithm("spread", actor=WHO)),
    *(
        Row("receive", f"of {happened}", lambda it, it_was=happened: it.report(it_was), asks, state)
        for happened, (state, asks) in REPORTED.items()
    ),
    Row(
        "receive",
        "of the end of what was lost",
        lambda it: it.report(Happened.COMPLETE),
        {UPDATE, ROOM},
        before=Scene.lost,
    ),
    Row(
        "receive",
        "of what was said before",
        lambda it: it.report(Happened.COMPLETE, seq=2),
        {UPDATE, ROOM},  # By what was said first.
        before=lambda it: it.report(Happened.COMPLETE),
    ),
    Row("put_secret", "", lambda _: endpoint.put_secret("default", "s", "hunter2-2", actor=WHO)),
    Row(
        "delete_secret",
        "",
        lambda _: endpoint.delete_secret("default", "s", actor=WHO),
        before=lambda _: endpoint.put_secret("default", "s", "hunter2-2", actor=WHO),
    ),
    Row("record_node", "", lambda it: endpoint.record_node(it.node.pk, "degraded", "n is full")),
    Row(
        "receive",
        "of an order taken",
        lambda it: it.takes(Want.BID),
        observed=Observed.NEW,
    ),
)


def test_every_verb_has_a_row_and_so_has_everything_that_a_node_can_say():
    public = {name: getattr(endpoint, name) for name in endpoint.__all__}
    verbs = {name for name, it in public.items() if inspect.isroutine(it)}
    questions = {name for name in verbs if public[name].__module__ == finding.__name__}
    questions |= {"missing", "with_users"}  # Of secrets.
    assert {row.verb for row in TABLE} == verbs - questions
    assert REPORTED.keys() == set(Happened)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.verb} {row.when}".strip())
def test_a_verb_asks_for_the_evaluations_that_its_row_says(row):
    scene = Scene(row.observed, **row.of_node)
    row.before(scene)
    row.call(scene)
    assert scene.asked() == Counter(row.asks), "each of them once"
