"""Which bids are taken, and which of several executions of a slot stays."""

from orchestrator.explain.wording import all_of, text
from orchestrator.scheduling.bad_nodes import BadNode
from orchestrator.scheduling.slot_scheduler import schedule
from orchestrator.scheduling.world import Progress
from tests.scheduling.worlds import GIB, NOW, execution, node, seconds, world

ZONES = [{"over": "zone", "weight": 100}]


def bid(slot, name, age=9):
    return execution("ask_for_bid_accepted", slot, node=name, created_at=NOW - seconds(age))


def taken(plan, *bids):
    return [it.node for it in bids if it.id in plan.approve]


def test_the_best_bid_is_best_for_the_spread_too():
    fuller = node("a2", zone="a", used=(3000, 6 * GIB, 0, 0))
    runs, here, there = execution("running", 0, node="a1"), bid(1, "a2"), bid(1, "b1")
    nodes = [node("a1", zone="a"), fuller, node("b1", zone="b")]
    plan = schedule(world(runs, here, there, nodes=nodes, count=2, ask=2, spread=ZONES))
    assert taken(plan, here, there) == ["b1"]


def test_what_was_taken_for_one_slot_counts_for_the_next():
    bids = [bid(slot, name) for slot in (0, 1) for name in ("n1", "n2")]
    plan = schedule(world(*bids, nodes=["n1", "n2"], count=2, ask=2))
    assert taken(plan, *bids) == ["n1", "n2"]


def test_the_bids_of_a_slot_do_not_speak_against_each_other():
    bids = [bid(0, "a1"), bid(0, "a2", age=8), bid(0, "b1", age=7)]
    nodes = [node("a1", zone="a"), node("a2", zone="a"), node("b1", zone="b")]
    assert taken(schedule(world(*bids, nodes=nodes, ask=3, spread=ZONES)), *bids) == ["a1"]


def test_what_a_bid_holds_on_its_node_is_not_counted_twice():
    """The second node is fuller with it, and would overflow like the first with it twice."""
    older, better = bid(0, "n1"), bid(0, "n2", age=1)
    nodes = [node("n1", used=(3500, 0, 0, 0)), node("n2", used=(3800, 0, 0, 0))]
    plan = schedule(world(older, better, nodes=nodes, ask=2, resources={"cpu": 2}))
    assert taken(plan, older, better) == ["n2"]


def test_a_bid_of_a_node_where_the_job_failed_is_taken_only_when_there_is_no_other():
    nodes = [node("n1", used=(3900, 8 * GIB, 0, 0)), "n2"]
    bad, good = bid(0, "n1"), bid(0, "n2")
    failed = Progress(attempts={0: 1}, bad_nodes={"n1": BadNode(NOW, failed=1)})
    assert taken(schedule(world(bad, good, nodes=nodes, ask=2, progress=failed)), bad, good) == [
        "n2"
    ]
    assert taken(schedule(world(bad, nodes=nodes, ask=2, progress=failed)), bad) == ["n1"]


def test_nodes_asked_for_one_slot_count_as_one_execution_together():
    """Three asked in one zone are one there; it has no more than the other has."""
    asked = [execution("ask_for_bid", 0, node=name) for name in ("a1", "a2", "a3")]
    nodes = [*(node(f"a{i}", zone="a") for i in range(1, 5)), node("b1", zone="b")]
    runs = execution("running", 1, node="b1")
    plan = schedule(world(*asked, runs, nodes=nodes, count=3, ask=3, spread=ZONES))
    assert next(place.node for place in plan.place) == "a4"


def test_of_two_that_were_approved_the_further_stays_and_of_equals_the_older():
    behind, ahead = execution("preparing", 0, node="n1"), execution("running", 0, node="n2")
    assert [it.execution for it in schedule(world(behind, ahead)).stop] == [behind.id]
    young = execution("running", 0, node="n1", created_at=NOW - seconds(1))
    assert [it.execution for it in schedule(world(young, ahead)).stop] == [young.id]


def test_of_more_nodes_than_the_job_asks_those_stay_that_have_come_furthest():
    asked = [execution(how, 0, node=name) for how, name in
             (("new", "n1"), ("ask_for_bid", "n2"), ("new", "n3"))]  # fmt: skip
    plan = schedule(world(*asked, ask=2))
    assert [it.execution for it in plan.stop] == [asked[2].id]
    assert text(all_of(plan.reasons)).startswith("waiting for 2 bids from N1 and N2")
    assert [it.execution for it in schedule(world(*asked, ask=1)).stop] == [
        asked[0].id,
        asked[2].id,
    ]
