"""Every order that an agent can get, in every stage that an execution can have reached there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodes.agent.effects import Effect, Start, Stop
from nodes.agent.facts import Exited, Started
from nodes.agent.records import Stage
from nodes.protocol.messages import Desired, Happened, Order, Orders, Want
from nodes.protocol.resources import Resources
from tests.agent.test_core import TRUE, Node

NEED = Resources(cpu=400)

LEADING_TO: dict[str, tuple[Want | str, ...]] = {
    "unknown": (),
    "held": (Want.BID,),
    "starting": (Want.RUN,),
    "running": (Want.RUN, "started"),
    "asked to stop before it ran": (Want.RUN, Want.STOP),
    "stopping": (Want.RUN, "started", Want.STOP),
    "ended": (Want.RUN, "started", "exited", "said"),
    "cancelled": (Want.STOP, "said"),
    "over": (Want.RUN, "started", "exited", "said", "acknowledged", "committed"),
    "over in this turn": (Want.RUN, "started", "exited", "said", "acknowledged"),
    "rejected": (Want.BID, Want.REJECT, "said"),
    "rejected unseen": (Want.REJECT, "said"),
    "rejected in this turn": (Want.BID, "said", Want.REJECT),
}
"""How an execution gets into each stage."""

NOTHING: tuple[list[type], list[Happened]] = ([], [])
AGAIN: tuple[list[type], list[Happened]] = ([], [Happened.COMPLETE])
CANCELS: tuple[list[type], list[Happened]] = ([], [Happened.CANCEL])
STARTS: tuple[list[type], list[Happened]] = ([Start], [])
STOPS: tuple[list[type], list[Happened]] = ([Stop], [])

ANSWERS = {
    #                               BID         RUN      REJECT   STOP
    "unknown": (([], [Happened.BID]), STARTS, NOTHING, CANCELS),
    "held": (NOTHING, STARTS, NOTHING, CANCELS),
    "starting": (NOTHING, NOTHING, STOPS, STOPS),
    "running": (NOTHING, NOTHING, STOPS, STOPS),
    "asked to stop before it ran": (NOTHING, NOTHING, NOTHING, NOTHING),
    "stopping": (NOTHING, NOTHING, NOTHING, NOTHING),
    "ended": (NOTHING, NOTHING, NOTHING, NOTHING),
    "cancelled": (NOTHING, NOTHING, NOTHING, NOTHING),
    "over": (AGAIN, AGAIN, NOTHING, AGAIN),
    "over in this turn": (AGAIN, AGAIN, NOTHING, AGAIN),
    "rejected": (CANCELS, CANCELS, NOTHING, CANCELS),
    "rejected unseen": (CANCELS, CANCELS, NOTHING, CANCELS),
    "rejected in this turn": (CANCELS, CANCELS, NOTHING, CANCELS),
}
"""What the agent asks of itself, and what it reports."""

AFTERWARDS = {
    "unknown": (Stage.HELD, Stage.STARTING, None, Stage.ENDED),
    "held": (Stage.HELD, Stage.STARTING, None, Stage.ENDED),
    "starting": (Stage.STARTING,) * 4,
    "running": (Stage.RUNNING,) * 4,
    "asked to stop before it ran": (Stage.STARTING,) * 4,
    "stopping": (Stage.RUNNING,) * 4,
    "ended": (Stage.ENDED,) * 4,
    "cancelled": (Stage.ENDED,) * 4,
}
"""The stage that the execution has then; what is over here has none."""

WANTS = (Want.BID, Want.RUN, Want.REJECT, Want.STOP)


def told(want: Want, rev: int) -> Order:
    begins = want in (Want.BID, Want.RUN)
    return Order("e", want, rev, TRUE if begins else None, NEED if begins else Resources())


def by_orders(node: Node, want: Want) -> list[Effect]:
    node.rev += 1
    return node.core.receive(Orders(1, node.rev - 1, node.rev, (told(want, node.rev),)), 0.0)


def by_the_full_set(node: Node, want: Want) -> list[Effect]:
    return node.core.receive(Desired(1, node.rev, (told(want, node.rev),)), 0.0)


def brought_to(stage: str) -> Node:
    """A node on which "e" has got into *stage*, all that it reported before having been sent."""
    node = Node()
    for step in LEADING_TO[stage]:
        match step:
            case Want():
                by_orders(node, step)
            case "started":
                node.core.observe(Started("e"))
            case "exited":
                node.core.observe(Exited("e", 0))
            case "acknowledged":
                node.acknowledge(node.frames[-1].seq)
            case "said" | "committed":
                node.listen()
    if "this turn" not in stage:
        node.listen()
    return node


def test_every_order_is_in_the_table_in_every_stage():
    assert set(WANTS) == set(Want)
    reached = {
        entry.stage for name in LEADING_TO for entry in brought_to(name).core.entries.values()
    }
    assert reached == set(Stage)
    assert ANSWERS.keys() == LEADING_TO.keys()


@pytest.mark.parametrize("tell", [by_orders, by_the_full_set])
@pytest.mark.parametrize("want", WANTS)
@pytest.mark.parametrize("stage", LEADING_TO)
def test_an_agent_answers_an_order_as_its_table_says_and_its_repetition_never(
    stage: str, want: Want, tell: Callable[[Node, Want], list[Effect]]
):
    node, column = brought_to(stage), WANTS.index(want)
    effects = tell(node, want)
    answer = [type(effect) for effect in effects], [it.happened for it in node.listen()]
    assert answer == ANSWERS[stage][column]
    entry = node.core.entries.get("e")
    assert (entry and entry.stage) == AFTERWARDS.get(stage, (None,) * 4)[column]
    assert node.core.used == (NEED if entry and entry.live else Resources())
    assert [type(effect) for effect in tell(node, want)] == []
