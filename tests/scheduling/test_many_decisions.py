"""Which attempt a slot is at, and which nodes are asked, over several decisions."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator import spec
from orchestrator.explain import wording
from orchestrator.explain.reasons import Delayed, How, Unplaced
from orchestrator.lifecycle import Desired, JobState, Observed, StopCause
from orchestrator.scheduling import waits
from orchestrator.scheduling.bad_nodes import AVOID, BadNode
from orchestrator.scheduling.slot_history import delay
from orchestrator.scheduling.slot_scheduler import schedule
from orchestrator.scheduling.slot_set import with_slots
from orchestrator.scheduling.status import LOOK_AGAIN
from orchestrator.scheduling.waits import Wait
from orchestrator.scheduling.world import Progress
from tests.scheduling.worlds import GIB, NOW, execution, node, seconds, world

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


def test_a_slot_has_waited_until_its_node_can_refuse_it_no_longer():
    since = NOW - seconds(50)
    for observed in ("ask_for_bid", "ask_for_bid_accepted", "bid_accepted", "preparing"):
        plan = schedule(world(execution(observed, 0), progress=Progress(waits=(Wait(since),))))
        assert plan.progress.waiting_since == (None if observed == "preparing" else since)


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


def test_each_slot_may_wait_as_long_as_the_job_says():
    """One that has waited long and found its place takes nothing from one that begins to wait."""
    small = {"count": 2, "resources": {"cpu": 1}, "approval": "none", "timeouts": {"queue": 60}}
    full = schedule(world(nodes=[node("n1", cpu=1000)], **small))
    assert (len(full.place), full.progress.waiting_since) == (1, NOW)
    runs = execution("running", 1)  # The one that waited has its place, the other was lost.
    taken = {"nodes": [node("n1", cpu=1000, used=(1000, 0, 0, 0))], **small}
    plan = schedule(world(runs, progress=full.progress, now=NOW + seconds(50), **taken))
    assert plan.progress.waiting_since == NOW + seconds(50)
    assert [it.at for it in plan.followups] == [NOW + seconds(110)]
    for at, state in ((61, JobState.RUNNING), (110, JobState.FAILED)):
        then = {"progress": plan.progress, "now": NOW + seconds(at), **taken}
        assert schedule(world(runs, **then)).state is state


@given(st.lists(st.sets(st.integers(0, 20)), max_size=12))
def test_no_slot_is_given_up_too_early_however_many_begin_to_wait(steps):
    waited, since = (), {}
    for minute, unplaced in enumerate(steps):
        now = NOW + seconds(60 * minute)
        waited = waits.after(waited, now, sorted(unplaced), ())
        since = {slot: since.get(slot, now) for slot in unplaced}
        assert len(waited) <= waits.MOST
        for slot in unplaced:
            assert waits.longest(waited, [slot]) >= since[slot]
        assert waits.longest(waited, sorted(unplaced)) == min(since.values(), default=None)


def test_a_job_that_many_have_refused_asks_as_many_as_it_has_slots():
    long_ago = BadNode(NOW - seconds(600), refused=1, until=NOW - seconds(500))
    before = Progress(bad_nodes={f"n{i:02}": long_ago for i in range(64)})
    nodes = [node(f"n{i:02}", cpu=1000) for i in range(80)]
    plan = schedule(world(nodes=nodes, progress=before, count=30, resources={"cpu": 1}))
    assert len({place.node for place in plan.place}) == 30


def never_asked(names, *, lasting, **job):
    """Those of *names* that are never asked, when all refuse all that they are asked, at once."""
    now, refused, progress, asked = NOW, (), Progress(), set()
    while now < NOW + seconds(lasting) and asked < set(names):
        plan = schedule(world(*refused, nodes=names, now=now, progress=progress, **job))
        progress, refused = plan.progress, ()
        if not plan.place:
            now = max(plan.followups[0].at, now + seconds(0.02))
            continue
        asked |= {it.node for it in plan.place}
        now += seconds(0.2)
        refused = tuple(
            execution("ask_for_bid_rejected", it.slot, node=it.node, ended_at=now)
            for it in plan.place
        )
    return sorted(set(names) - asked)


def test_each_node_has_its_turn_also_for_a_job_that_asks_a_node_for_two_slots_at_once():
    names = [f"n{i:03}" for i in range(200)]
    small = {"resources": {"cpu": 0.1, "memory": "64MiB"}}
    assert never_asked(names, lasting=300, count=1, **small) == []
    assert never_asked(names, lasting=1200, count=2, **small) == []  # Four times as long.


def test_nodes_that_refused_long_ago_do_not_make_a_job_ask_one_node_at_a_time():
    """None of them is avoided any longer, and a hundred others have never refused."""
    fresh = [node(f"a{i:03}", cpu=1000) for i in range(100)]
    often = [node(f"b{i:02}", cpu=1000) for i in range(64)]
    at = NOW - seconds(1800)
    bad = {it["name"]: BadNode(at, refused=1, until=at + seconds(30)) for it in often}
    asked = {"count": 100, "resources": {"cpu": 1}, "nodes": [*fresh, *often]}
    assert len(schedule(world(**asked, progress=Progress(bad_nodes=bad))).place) > 1


def test_a_job_waits_no_longer_when_all_that_waited_run():
    """Slot 0 waited, and runs; slot 1 never did, and looks for its second place."""
    job = {"count": 2, "retry": {"attempts": 9, "delay": 1}, "state": JobState.RUNNING}
    before = Progress(waits=(Wait(NOW - seconds(9000)),))
    placed, other = execution("bid_accepted", 0), execution("running", 1, node="n2")
    plan = schedule(world(placed, other, progress=before, **job))
    assert plan.progress.waiting_since == NOW - seconds(9000)  # It may be refused.
    runs = execution("running", 0)
    failed = execution("failed", 1, node="n2", exit_code=1, code="exit-code")
    failed = replace(failed, ended_at=NOW - seconds(10))
    full = [node(it, used=(4000, 0, 0, 0)) for it in ("n1", "n2")]
    roomy = schedule(world(runs, failed, progress=plan.progress, now=NOW + seconds(1), **job))
    assert [it.slot for it in roomy.place] == [1]
    no = execution("ask_for_bid_rejected", 1, node="n3", attempt=2, ended_at=NOW + seconds(2))
    then = {"progress": roomy.progress, "now": NOW + seconds(2), "nodes": full}
    late = schedule(world(runs, no, **then, **job))
    assert late.progress.waiting_since >= NOW, late.reasons


def test_a_slot_that_begins_to_wait_has_not_waited_since_another_did_when_a_limit_is_set():
    """The job had none, and slot 0 has waited for long; slot 1 is lost as slot 0 finds a place."""
    before = Progress(waits=(Wait(NOW - seconds(9000)),), attempts={1: 1})
    job = {"count": 2, "resources": {"cpu": 1}, "timeouts": {"queue": 60}}
    one = [node("n1", cpu=1000)]
    plan = schedule(world(nodes=one, progress=before, state=JobState.RUNNING, **job))
    assert [it.slot for it in plan.place] == [0]
    assert plan.state is not JobState.FAILED


def test_a_slot_that_backs_off_after_an_interruption_is_not_explained_by_anothers_failure():
    job = {"count": 2, "retry": {"attempts": 9, "delay": 60}, "state": JobState.RUNNING}
    bad = execution("failed", 0, exit_code=1, code="exit-code", ended_at=NOW)
    cut = execution("failed", 1, node="n2", code="unknown-outcome", ended_at=NOW + seconds(50))
    first = schedule(world(bad, progress=Progress(interruptions={1: 1}), now=NOW, **job))
    assert first.progress.last_failure.slot == 0
    plan = schedule(world(cut, progress=first.progress, now=NOW + seconds(50), **job))
    runs = execution("running", 0, attempt=2)
    later = schedule(world(runs, progress=plan.progress, now=NOW + seconds(70), **job))
    [delayed] = [it for it in later.reasons if isinstance(it, Delayed)]
    assert delayed.slots == 1
    said = (delayed.last.slot, delayed.last.number, delayed.last.how, delayed.last.final)
    assert said == (1, 2, How.INTERRUPTED, None)
    text = "".join(str(it) for it in wording.reason(delayed))
    assert text.startswith("slot 1 was interrupted on N2; it is interruption 2, and 100 are")


def test_what_is_said_of_unplaced_slots_is_since_when_they_wait_and_not_another():
    """Slot 0 has waited for long, and was asked for a bid; slot 1 begins to wait."""
    before = Progress(waits=(Wait(NOW - seconds(3000), b"\1"),))
    asked = execution("ask_for_bid", 0)
    full = [node("n1", cpu=1000, used=(1000, 0, 0, 0))]
    job = {"count": 2, "resources": {"cpu": 1}, "timeouts": {"queue": 3600}}
    plan = schedule(world(asked, nodes=full, progress=before, **job))
    [unplaced] = [it for it in plan.reasons if isinstance(it, Unplaced)]
    assert (unplaced.missing, unplaced.since) == (1, NOW)


def test_a_slot_that_waits_after_its_failure_says_so_also_when_another_failed_since_and_runs():
    """Slot 0 has failed often and waits for long, slot 1 failed later and waited a moment."""
    job = {"count": 2, "retry": {"attempts": 9, "delay": 10}, "state": JobState.RUNNING}
    often = execution("failed", 0, exit_code=1, code="exit-code", ended_at=NOW)
    once = execution("failed", 1, node="n2", exit_code=1, code="exit-code", ended_at=NOW)
    before = Progress(failed_attempts={0: 5})
    plan = schedule(world(often, execution("running", 1), progress=before, **job))
    plan = schedule(world(once, progress=plan.progress, **job))
    runs = execution("running", 1, node="n3", attempt=2)
    later = schedule(world(runs, progress=plan.progress, now=NOW + seconds(20), **job))
    [delayed] = [it for it in later.reasons if isinstance(it, Delayed)]
    assert (delayed.slots, delayed.last and delayed.last.slot) == (1, 0)


def test_who_waited_too_long_is_counted_without_those_that_began_to_wait_later():
    waited = (Wait(NOW - seconds(30), b"\1"), Wait(NOW - seconds(5), b"\2"))
    full = [node("n1", cpu=1000, used=(1000, 0, 0, 0))]
    job = {"count": 2, "resources": {"cpu": 1}, "timeouts": {"queue": 20}}
    plan = schedule(world(nodes=full, progress=Progress(waits=waited), **job))
    assert plan.state is JobState.FAILED
    assert plan.reasons[0].missing == 1


def test_what_ran_too_long_is_stopped_for_that_also_when_the_job_fails_with_it():
    late = execution("running", 0, started_at=NOW - seconds(999))
    other = execution("running", 1, node="n2")
    job = {"count": 2, "retry": {"attempts": 1}, "timeouts": {"execution": 60}}
    plan = schedule(world(late, other, state=JobState.RUNNING, **job))
    assert plan.state is JobState.FAILED
    assert {it.execution: it.cause for it in plan.stop} == {
        late.id: StopCause.OVERRAN,
        other.id: StopCause.JOB_FAILED,
    }


def test_a_slot_above_the_count_is_scaled_in_also_where_the_job_has_completed_with_that():
    above = execution("running", 1)
    done = Progress(completed=b"\1", outcomes={"completed": 1})
    plan = schedule(world(above, count=1, progress=done, state=JobState.RUNNING))
    assert plan.state is JobState.COMPLETED
    assert [it.cause for it in plan.stop] == [StopCause.SCALED_IN]


def test_a_slot_above_the_count_is_scaled_in_also_where_it_has_run_too_long_besides():
    """As where the job goes on: there the count comes first."""
    above = execution("running", 1, started_at=NOW - seconds(999))
    job = {"count": 1, "timeouts": {"execution": 60}, "state": JobState.RUNNING}
    plan = schedule(world(above, progress=Progress(), **job))
    assert [it.cause for it in plan.stop] == [StopCause.SCALED_IN]
    plan = schedule(world(above, progress=Progress(completed=b"\1"), **job))
    assert plan.state is JobState.COMPLETED
    assert [it.cause for it in plan.stop] == [StopCause.SCALED_IN]
