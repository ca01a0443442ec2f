"""At the node: what an older session said late does nothing, what is said twice starts nothing."""

import msgspec
import pytest

from nodes.agent.core import Core
from nodes.agent.effects import Drop, Start
from nodes.agent.records import Machine, Saved
from nodes.protocol.messages import (
    Ack,
    Desired,
    Order,
    Orders,
    Pulse,
    Task,
    Unwatch,
    Want,
    Watch,
    Welcome,
)
from nodes.protocol.resources import Resources

TASK = Task("process", ("true",))
RUN = Order("e1", Want.RUN, 1, TASK)
NEW, OLD = 2, 1
FROM_SERVER = {
    "desired": lambda epoch: Desired(epoch, 9, (Order("e9", Want.RUN, 9, TASK),)),
    "orders": lambda epoch: Orders(epoch, 1, 9, (Order("e9", Want.RUN, 9, TASK),)),
    "stop": lambda epoch: Orders(epoch, 1, 9, (Order("e1", Want.STOP, 9),)),
    "ack": lambda epoch: Ack(epoch, 1),
    "pulse": Pulse,
    "watch": lambda epoch: Watch(epoch, "1", "e1", "stdout"),
    "unwatch": lambda epoch: Unwatch(epoch, "1"),
}


def welcomed():
    """An agent that was told to run one task, over its second session."""
    machine = Machine("i1", 1, "l1", "b1", Resources(cpu=4000), {}, {"process"})
    core = Core(machine, Saved(), lambda execution: (False, None))
    core.opened(0.0)
    core.receive(Welcome(NEW, "n", 1, (RUN,), 10.0, approved=True), 0.0)
    core.reports()
    return core


def told(core):
    return core.order_rev, core.entries, len(core.outbox), core.epoch


@pytest.mark.parametrize("late", FROM_SERVER)
@pytest.mark.parametrize("timely", FROM_SERVER)
def test_what_an_older_session_said_does_nothing_at_the_node(late, timely):
    core, undisturbed = welcomed(), welcomed()
    assert core.receive(FROM_SERVER[late](OLD), 1.0) == []
    effects = core.receive(FROM_SERVER[timely](NEW), 1.0)
    assert core.receive(FROM_SERVER[late](OLD), 1.0) == []
    assert effects == undisturbed.receive(FROM_SERVER[timely](NEW), 1.0)
    assert told(core) == told(undisturbed)


@pytest.mark.parametrize("message", FROM_SERVER)
def test_what_the_node_is_told_twice_starts_nothing_twice(message):
    core = welcomed()
    core.receive(FROM_SERVER[message](NEW), 1.0)
    once = told(core)
    effects = core.receive(FROM_SERVER[message](NEW), 1.0)
    assert not [it for it in effects if isinstance(it, Start | Drop)]
    assert msgspec.to_builtins(told(core)[:2]) == msgspec.to_builtins(once[:2])
