"""What decisions about a job should be, and are not."""

from dataclasses import replace
from datetime import timedelta

from dashboard.presenters.slots import grid
from orchestrator.lifecycle import JobState
from orchestrator.scheduling.bad_nodes import BadNode
from orchestrator.scheduling.slot_scheduler import schedule
from orchestrator.scheduling.world import Progress
from tests.scheduling.worlds import GIB, NOW, execution, node, seconds, world


def asked_until(accepts, *, lasting=timedelta(hours=2), **job):
    """The first node that accepts, as the job asks one after the other; None if none is asked."""
    now, refused, progress, state = NOW, (), Progress(), JobState.PENDING
    while now < NOW + lasting:
        plan = schedule(world(*refused, now=now, progress=progress, state=state, **job))
        progress, refused, state = plan.progress, (), plan.state
        if state is JobState.FAILED:
            return "failed"
        if not plan.place:
            now = max(plan.followups[0].at, now + seconds(0.02))
            continue
        [place] = plan.place
        if accepts(place.node):
            return place.node
        now += seconds(0.2)
        no = execution("ask_for_bid_rejected", node=place.node, ended_at=now, started_at=None)
        refused = (no,)
    return None


def test_a_node_that_was_never_asked_is_asked_before_one_that_has_refused_is_asked_again():
    eager = [node(f"n{i:02}", used=(2000, 4 * GIB, 0, 0)) for i in range(64)]
    nodes = [*eager, node("would-take-it")]
    assert asked_until(lambda it: it == "would-take-it", nodes=nodes) == "would-take-it"


def test_nodes_that_are_gone_keep_nobody_from_being_asked():
    later = BadNode(NOW - seconds(1), refused=1, until=NOW + seconds(29))
    before = Progress(bad_nodes={f"gone-{i}": later for i in range(64)})
    assert len(schedule(world(progress=before)).place) == 1


def test_a_slot_that_its_node_always_refuses_has_waited_all_along_also_without_bids():
    job = {"approval": "none", "timeouts": {"queue": 600}, "nodes": ["n1"]}
    assert asked_until(lambda it: False, **job) == "failed"


def test_the_same_with_bids():
    job = {"timeouts": {"queue": 600}, "nodes": ["n1"]}
    assert asked_until(lambda it: False, **job) == "failed"


def test_a_lost_bid_that_was_not_needed_keeps_no_slot_waiting_for_its_node():
    surplus = execution("lost", node="n1", cause="surplus_bid", started_at=None)
    plan = schedule(world(surplus, on_lost="wait"))
    assert [it.slot for it in plan.place] == [0]


def test_what_was_replaced_before_its_node_was_lost_keeps_no_slot_waiting():
    old = execution("lost", node="n1", cause="constraints_unmet")
    new = execution("failed", node="n2", attempt=2, exit_code=1, code="exit-code")
    plan = schedule(world(old, replace(new, ended_at=NOW - seconds(10)), on_lost="wait"))
    assert [it.slot for it in plan.place] == [0]


def test_the_slot_that_a_job_failed_for_is_drawn_as_failed_also_when_it_was_interrupted():
    plan = schedule(world(execution("lost", cause="node_lost"), on_lost="fail"))
    assert plan.state is JobState.FAILED
    assert [word for _, word, _ in grid(1, [], plan.progress, state="failed").legend] == ["failed"]
