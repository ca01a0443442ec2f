"""Messages that come late, from a session that was replaced, and answers that were lost.

Tables: each late message before and after each timely one, and each question asked again.  Nothing
changes twice, nothing goes backwards, nobody is stuck.
"""

from dataclasses import dataclass

import pytest

from nodes import membership
from nodes.callbacks import Inbound, Verdict
from nodes.errors import Fenced
from nodes.models import Node, NodeHeartbeat, NodeSession
from nodes.protocol import codec
from nodes.protocol.messages import (
    Ack,
    Close,
    Goodbye,
    Happened,
    Heartbeat,
    Held,
    Holding,
    LogChunk,
    LogEnd,
    Report,
    Reports,
    Want,
)
from nodes.session_protocol import LiveSession
from orchestrator import endpoint, lifecycle
from orchestrator.endpoint import reports
from orchestrator.lifecycle import Observed
from orchestrator.models import (
    BrokerTrigger,
    Event,
    Execution,
    ExecutionHistory,
    ExecutionOutput,
)
from orchestrator.planners import compute_forwarder
from tests import rows
from tests.nodes.links import Orchestrator, hello, joined, look, play

pytestmark = pytest.mark.django_db(transaction=True)

#: What a node says of an execution, the state in which it says so, and the state that follows.
SAID = {
    Happened.BID: (Observed.ASK_FOR_BID, Observed.ASK_FOR_BID_ACCEPTED),
    Happened.DECLINE: (Observed.ASK_FOR_BID, Observed.ASK_FOR_BID_REJECTED),
    Happened.PREPARE: (Observed.BID_ACCEPTED, Observed.PREPARING),
    Happened.START: (Observed.BID_ACCEPTED, Observed.RUNNING),
    Happened.PUBLISH: (Observed.RUNNING, Observed.PUBLISHING),
    Happened.COMPLETE: (Observed.RUNNING, Observed.COMPLETED),
    Happened.FAIL: (Observed.RUNNING, Observed.FAILED),
    Happened.CANCEL: (Observed.RUNNING, Observed.CANCELLED),
}
#: What a node takes of what it is told, in which state, and what follows.
TAKEN = {
    Want.BID: (Observed.NEW, "pending", Observed.ASK_FOR_BID),
    Want.RUN: (Observed.ASK_FOR_BID_ACCEPTED, "running", Observed.BID_ACCEPTED),
    Want.REJECT: (Observed.ASK_FOR_BID_ACCEPTED, "stopped", Observed.BID_REJECTED),
    Want.STOP: (Observed.RUNNING, "stopped", Observed.RUNNING),
}
#: What a node holds of an execution in each of these states; of others, nothing.
HELD = {
    Observed.ASK_FOR_BID_ACCEPTED: Holding.BID,
    Observed.BID_ACCEPTED: Holding.PREPARING,
    Observed.PREPARING: Holding.PREPARING,
    Observed.RUNNING: Holding.RUNNING,
    Observed.PUBLISHING: Holding.RUNNING,
    Observed.ASK_FOR_BID_REJECTED: Holding.ENDED,
    Observed.COMPLETED: Holding.ENDED,
    Observed.FAILED: Holding.ENDED,
    Observed.CANCELLED: Holding.ENDED,
}


@dataclass
class Scene:
    """A node with one execution, and the sessions it has had."""

    node: Node
    execution: Execution

    def greet(self):
        return membership.greet(self.node.pk, hello(), "web", record=endpoint.record_node).epoch

    def frame(self, epoch, *, seq=1, said=(), told=(), rev=0):
        key = str(self.execution.pk)
        items = tuple(Report(key, it, exit_code=3, stdout="x") for it in said)
        return Inbound(self.node.pk, epoch, seq, rev, tuple((key, it) for it in told), items)

    def holds(self):
        self.execution.refresh_from_db()
        holding = HELD.get(Observed(self.execution.observed))
        return (Held(str(self.execution.pk), holding),) if holding else ()

    def desired(self, epoch, holds, *, partial=False):
        return compute_forwarder.desired(self.node.pk, hello(holds=holds, partial=partial), epoch)


def scene(observed, wanted=None):
    node, job = rows.node(), rows.job()
    execution = rows.execution(job, node, observed=observed)
    if wanted == "stopped" and execution.desired != "stopped":
        rows.wish(execution, lifecycle.Desired.STOPPED)
    elif wanted == "running" and execution.desired == "pending":
        rows.wish(execution, lifecycle.Desired.RUNNING)
    return Scene(node, execution)


def facts(*, sessions=True):
    """All that a message may change."""
    kept = {
        "executions": list(Execution.objects.order_by("pk").values()),
        "history": ExecutionHistory.objects.count(),
        "output": list(ExecutionOutput.objects.values()),
        "events": list(Event.objects.order_by("id").values("what", "execution_id")),
        "jobs": sorted(BrokerTrigger.objects.exclude(job_id=None).values_list("job_id", "trigger")),
        "nodes": list(Node.objects.order_by("pk").values("pk", *_OF_A_NODE)),
    }
    if sessions:
        kept["sessions"] = list(NodeSession.objects.order_by("pk").values())
        kept["heartbeats"] = list(NodeHeartbeat.objects.order_by("pk").values())
        kept["room"] = BrokerTrigger.objects.count()
    return kept


_OF_A_NODE = ("approval", "connection", "quarantined", "order_rev", "allocated_cpu", "capacity_cpu")


# --- late: said by a session that was replaced ---------------------------------------------------


def _late_report(happened):
    def say(it, epoch):
        assert reports.receive([it.frame(epoch, said=[happened])]) == [Verdict.FENCED]

    return say


def _late_taken(want):
    def say(it, epoch):
        frame = it.frame(epoch, told=[want], rev=it.execution.order_rev)
        assert reports.receive([frame]) == [Verdict.FENCED]

    return say


def _late_heartbeat(it, epoch):
    beats = [membership.Beat(it.node.pk, epoch, running=9, load=9.0)]
    assert membership.beat(beats).fenced == {it.node.pk}


def _late_goodbye(it, epoch):
    assert not membership.leave(it.node.pk, epoch)


def _late_hello_with_nothing(it, epoch):
    with pytest.raises(Fenced):
        it.desired(epoch, ())


def _late_hello_with_a_bid(it, epoch):
    with pytest.raises(Fenced):
        it.desired(epoch, (Held(str(it.execution.pk), Holding.BID),))


def _late_hello_with_a_task(it, epoch):
    with pytest.raises(Fenced):
        it.desired(epoch, (Held(str(it.execution.pk), Holding.RUNNING),))


def _late_resync(it, epoch):
    with pytest.raises(Fenced):
        it.desired(epoch, (), partial=True)


LATE = {
    **{f"report {happened}": _late_report(happened) for happened in Happened},
    **{f"taken {want}": _late_taken(want) for want in Want},
    "heartbeat": _late_heartbeat,
    "goodbye": _late_goodbye,
    "hello with nothing": _late_hello_with_nothing,
    "hello with a bid": _late_hello_with_a_bid,
    "hello with a task": _late_hello_with_a_task,
    "resync": _late_resync,
}


def _timely_report(happened):
    before, after = SAID[happened]

    def say(it, epoch):
        assert reports.receive([it.frame(epoch, said=[happened])]) == [Verdict.ACCEPTED]

    return before, None, say, after


def _timely_taken(want):
    before, wanted, after = TAKEN[want]

    def say(it, epoch):
        frame = it.frame(epoch, told=[want], rev=it.execution.order_rev)
        assert reports.receive([frame]) == [Verdict.ACCEPTED]

    return before, wanted, say, after


def _heartbeat(it, epoch):
    assert not membership.beat([membership.Beat(it.node.pk, epoch, running=1)]).fenced


def _goodbye(it, epoch):
    assert membership.leave(it.node.pk, epoch)


def _hello(it, epoch):
    it.desired(epoch, it.holds())


#: The state before, what is wanted, what the current session says, and the state after.
TIMELY = {
    **{f"report {happened}": _timely_report(happened) for happened in SAID},
    **{f"taken {want}": _timely_taken(want) for want in TAKEN},
    "heartbeat": (Observed.RUNNING, None, _heartbeat, Observed.RUNNING),
    "goodbye": (Observed.RUNNING, None, _goodbye, Observed.RUNNING),
    "hello": (Observed.RUNNING, None, _hello, Observed.RUNNING),
}


@pytest.mark.parametrize("late", LATE)
def test_what_a_replaced_session_says_changes_nothing_before_or_after(late):
    for timely, (before, wanted, say, after) in TIMELY.items():
        it = scene(before, wanted)
        replaced, current = it.greet(), it.greet()
        at_first = facts()
        LATE[late](it, replaced)
        assert facts() == at_first, f"before {timely}"
        say(it, current)
        it.execution.refresh_from_db()
        assert it.execution.observed == after, timely
        in_between = facts()
        LATE[late](it, replaced)
        assert facts() == in_between, f"after {timely}"


# --- lost: said again because nobody heard the answer -------------------------------------------


@pytest.mark.parametrize("timely", TIMELY)
def test_what_is_said_again_over_the_same_session_changes_nothing_twice(timely):
    before, wanted, _, after = TIMELY[timely]
    it = scene(before, wanted)
    epoch = it.greet()
    word, _, name = timely.partition(" ")
    rev = it.execution.order_rev

    def say():
        if word == "report":
            return reports.receive([it.frame(epoch, said=[name])])
        if word == "taken":
            return reports.receive([it.frame(epoch, told=[Want(name)], rev=rev)])
        if word == "heartbeat":
            return membership.beat([membership.Beat(it.node.pk, epoch, running=1)])
        if word == "goodbye":
            return membership.leave(it.node.pk, epoch)
        return it.desired(epoch, it.holds())

    say()
    once = facts(sessions=False)
    answer = say()
    assert facts(sessions=False) == once
    it.execution.refresh_from_db()
    assert it.execution.observed == after
    if word in ("report", "taken"):
        assert answer == [Verdict.REPEATED]


@pytest.mark.parametrize("happened", SAID)
@pytest.mark.parametrize("greetings", [1, 2])
def test_a_report_whose_acknowledgement_was_lost_is_said_again_over_the_next_session(
    happened, greetings
):
    it = scene(SAID[happened][0])
    epoch = it.greet()
    it.desired(epoch, it.holds())
    reports.receive([it.frame(epoch, said=[happened])])
    once = facts(sessions=False)
    for _ in range(greetings):  # The answer to the first hello is lost, too.
        epoch = it.greet()
        it.desired(epoch, it.holds())
    assert reports.receive([it.frame(epoch, said=[happened])]) == [Verdict.ACCEPTED]
    assert facts(sessions=False) == once


@pytest.mark.parametrize("want", TAKEN)
def test_orders_whose_taking_was_never_heard_are_proven_by_the_next_hello(want):
    before, wanted, after = TAKEN[want]
    it = scene(before, wanted)
    it.greet()
    holds = {
        Want.BID: (Held(str(it.execution.pk), Holding.BID),),
        Want.RUN: (Held(str(it.execution.pk), Holding.PREPARING),),
        Want.REJECT: (),
        Want.STOP: (Held(str(it.execution.pk), Holding.RUNNING),),
    }[want]
    answer = it.desired(it.greet(), holds)
    it.execution.refresh_from_db()
    proven = {
        Want.BID: Observed.ASK_FOR_BID_ACCEPTED,
        Want.RUN: Observed.PREPARING,
    }.get(want, after)
    assert it.execution.observed == proven
    assert [order.want for order in answer.orders] == ([] if want is Want.REJECT else [want])


def test_the_end_of_a_lost_execution_is_written_down_once_however_often_it_is_said():
    it = scene(Observed.RUNNING)
    rows.lose(it.node)
    reports.receive([it.frame(it.greet(), said=[Happened.COMPLETE])])
    once = facts(sessions=False)
    assert [event["what"] for event in once["events"]] == ["late-report"]
    reports.receive([it.frame(it.greet(), said=[Happened.COMPLETE])])
    assert facts(sessions=False) == once


def test_a_resync_loses_nothing_that_the_node_takes_while_the_set_is_read():
    it = scene(Observed.NEW, "running")
    epoch = it.greet()
    books = LiveSession(
        it.node.pk, hello(), epoch, send=None, close=None, submit=None, ask_again=None
    )
    said = books.hello_now()
    reports.receive([it.frame(epoch, told=[Want.RUN], rev=it.execution.order_rev)])
    compute_forwarder.desired(it.node.pk, said, epoch)
    it.execution.refresh_from_db()
    assert it.execution.observed == Observed.BID_ACCEPTED


# --- over a link ---------------------------------------------------------------------------------


def _over_a_link(epoch, execution):
    """Each message of a node, as a frame of that epoch."""
    return {
        "reports": Reports(epoch, 1, 0, (Report(execution, Happened.COMPLETE, exit_code=0),)),
        "reports without any": Reports(epoch, 1, 0),
        "heartbeat": Heartbeat(epoch, 0, "", running=9),
        "log chunk": LogChunk(epoch, "1", 0, b"x"),
        "log end": LogEnd(epoch, "1"),
        "goodbye": Goodbye(epoch),
    }


MESSAGES = tuple(_over_a_link(0, ""))


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_over_a_replaced_link_nothing_is_heard_and_the_new_one_goes_on(message, elsewhere):
    node, credential = joined()
    execution = rows.execution(rows.job(), node, observed=Observed.RUNNING, cpu=0, memory=0)
    held = hello(holds=(Held(str(execution.pk), Holding.RUNNING),))

    async def act(world):
        old = await world.greeted(credential, held)
        if elsewhere:
            await look(
                lambda: membership.greet(node.pk, held, "web-2", record=endpoint.record_node)
            )
        else:
            new = await world.greeted(credential, held)
        late = _over_a_link(old.epoch, str(execution.pk))[message]
        before = await look(lambda: facts(sessions=False))
        if isinstance(late, LogChunk):
            await old.put_bytes(codec.encode_chunk(late))
        else:
            await old.say(late)
        code = await old.closed()
        assert code == (1000 if message == "goodbye" and elsewhere else Close.FENCED)
        await old.leave()
        if elsewhere:
            new = await world.greeted(credential, held)
        assert await look(lambda: facts(sessions=False)) == before
        await new.report(Report(str(execution.pk), Happened.COMPLETE, exit_code=0))
        assert await new.hear(Ack) == Ack(new.epoch, 1)

    play(act, Orchestrator())
    execution.refresh_from_db()
    assert execution.observed == "completed"


def test_a_hello_that_comes_late_ends_the_newer_link_which_greets_again():
    _, credential = joined()

    async def act(world):
        late, newer = world.link(credential), world.link(credential)
        assert await late.open()
        await newer.greet()
        await late.say(hello())
        assert await newer.closed() == Close.FENCED
        await late.leave()
        again = await world.greeted(credential)
        await again.report()
        assert await again.hear(Ack) == Ack(again.epoch, 1)

    play(act, Orchestrator())
