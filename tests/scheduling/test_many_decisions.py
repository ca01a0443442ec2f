"""Which attempt a slot is at, and which nodes are asked, over several decisions."""

from dataclasses import replace

from orchestrator import spec
from orchestrator.lifecycle import Desired, JobState, Observed
from orchestrator.scheduling.bad_nodes import AVOID, BadNode
from orchestrator.scheduling.slot_history import delay
from orchestrator.scheduling.slot_scheduler import schedule
from orchestrator.scheduling.status import LOOK_AGAIN
from orchestrator.scheduling.world import Progress
from tests.scheduling.worlds import NOW, execution, node, seconds, world

ZONES = [node("n1", zone="a"), node("n2", zone="b")]


def moved():
    """An execution that is stopped where it must not be, and what is placed instead."""
    old = execution("running", 0, node="n1")
    plan = schedule(world(old, nodes=ZONES, constraints=["zone = b"], state=JobState.RUNNING))
    assert [it.execution for it in plan.stop] == [old.id]
    [new] = plan.place
    return old, new, plan


def test_what_stands_in_for_what_stops_now_is_another_attempt():
    old, new, _ = moved()
    assert new.attempt > old.attempt


def test_the_failure_of_what_stood_in_is_counted_and_waits_before_it_is_tried_again():
    old, new, plan = moved()
    lost = replace(
        old, desired=Desired.STOPPED, observed=Observed.LOST, ended_at=NOW, reserved=False
    )
    instead = execution("running", 0, node="n2", attempt=new.attempt)
    asked = {
        "nodes": ZONES,
        "constraints": ["zone = b"],
        "state": JobState.RUNNING,
        "retry": {"attempts": 5, "delay": 60},
    }
    plan = schedule(world(lost, instead, progress=plan.progress, **asked))
    failed = replace(
        instead, desired=Desired.STOPPED, observed=Observed.FAILED, ended_at=NOW + seconds(200)
    )
    later = {"progress": plan.progress, "now": NOW + seconds(200)}
    plan = schedule(world(failed, **later, **asked))
    assert "n2" in plan.progress.bad_nodes, "nobody knows that it failed there"
    assert 0 in plan.progress.retry_at, "it is tried again without a pause"


def test_no_node_that_refuses_is_asked_again_at_once_however_many_there_are():
    nodes = [node(f"n{number:02}") for number in range(80)]
    progress, now, asked, refused = None, NOW, {}, ()
    for _ in range(200):
        plan = schedule(
            world(*refused, nodes=nodes, progress=progress, now=now, timeouts={"queue": 600})
        )
        progress, refused = plan.progress, ()
        if plan.place:
            [place] = plan.place
            before = asked.get(place.node)
            assert before is None or now - before >= AVOID, (place.node, now - before)
            asked[place.node] = now
            refused = (execution("ask_for_bid_rejected", 0, node=place.node, ended_at=now),)
        now += seconds(0.1)


def test_a_new_round_begins_with_the_first_attempt_also_while_one_of_before_ends():
    ending = execution("running", 0, desired=Desired.STOPPED, attempt=3, round=1)
    plan = schedule(world(ending, state=JobState.RUNNING, view={"round": 2}))
    assert [place.attempt for place in plan.place] == [1]


def test_a_job_that_only_refusing_nodes_would_take_fails_when_its_time_in_the_queue_is_over():
    nodes = [node(f"n{number:02}") for number in range(80)]
    progress, now, refused = None, NOW, ()
    for _ in range(1200):
        plan = schedule(
            world(*refused, nodes=nodes, progress=progress, now=now, timeouts={"queue": 60})
        )
        if plan.state is JobState.FAILED:
            return
        progress = plan.progress
        refused = tuple(
            execution("ask_for_bid_rejected", 0, node=place.node, ended_at=now)
            for place in plan.place
        )
        now += seconds(0.1)
    raise AssertionError("it has found no place in two minutes, and may wait one")


def test_a_stored_pause_holds_whatever_the_longest_is_in_this_release():
    stored = spec.load({"task": {"command": ["true"]}, "retry": {"delay": 900}})
    assert stored.retry.max_delay < 900
    assert delay(stored.retry, 1) == seconds(900)


def test_a_slot_that_has_completed_is_not_tried_again():
    before = Progress(attempts={0: 1}, failed_attempts={0: 1}, retry_at={0: NOW + seconds(60)})
    plan = schedule(world(execution("completed", 0, attempt=2), progress=before, count=2))
    assert plan.progress.slots == {}


def test_a_slot_waits_on_while_a_node_is_asked_and_no_longer_once_it_is_accepted():
    before = Progress(waiting_since=NOW - seconds(50))
    for observed, waits in (("ask_for_bid", NOW - seconds(50)), ("ask_for_bid_accepted", None)):
        plan = schedule(world(execution(observed, 0), progress=before))
        assert plan.progress.waiting_since == waits


def test_a_node_that_freed_room_is_not_kept_from_a_job_for_long():
    refused = {"n1": BadNode(NOW, refused=9, until=NOW + seconds(3000))}
    plan = schedule(world(nodes=["n1"], progress=Progress(bad_nodes=refused)))
    assert [it.at for it in plan.followups] == [NOW + LOOK_AGAIN]
    assert seconds(60) >= LOOK_AGAIN


def test_of_two_that_may_run_for_one_slot_the_one_that_has_come_further_stays():
    first, second = execution("bid_accepted", 0, node="n1"), execution("running", 0, node="n2")
    plan = schedule(world(first, second))
    assert [it.execution for it in plan.stop] == [first.id]


def test_of_too_many_that_are_asked_those_stay_that_have_come_furthest():
    new, asked = execution("new", 0, node="n1"), execution("ask_for_bid", 0, node="n2")
    plan = schedule(world(new, asked, ask=1))
    assert [it.execution for it in plan.stop] == [new.id]
