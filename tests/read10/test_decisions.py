"""What decisions about a job should be, and are not."""

from dataclasses import replace
from datetime import timedelta

from orchestrator.lifecycle import JobState
from orchestrator.scheduling.bad_nodes import BadNode
from orchestrator.scheduling.slot_scheduler import schedule
from orchestrator.scheduling.slot_set import with_slots
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


def test_what_stood_in_a_slot_that_has_completed_meanwhile_fails_nothing_any_more():
    done = Progress(completed=with_slots(b"", {0}))
    old = execution("failed", 0, cause="constraints_unmet", exit_code=1, code="exit-code")
    job = {"count": 2, "retry": {"attempts": 1}}
    plan = schedule(world(old, execution("running", 1), progress=done, **job))
    assert plan.state is JobState.RUNNING
    assert plan.progress.failed is None


def test_the_same_when_both_are_accounted_for_at_once():
    new = execution("completed", 0, node="n2", attempt=2)
    old = execution("failed", 0, cause="constraints_unmet", exit_code=1, code="exit-code")
    job = {"count": 2, "retry": {"attempts": 1}}
    plan = schedule(world(new, old, execution("running", 1), **job))
    assert plan.state is JobState.RUNNING
