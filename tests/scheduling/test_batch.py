"""What the scheduler decides about batch jobs, case by case."""

from dataclasses import replace

import pytest

from nodes.protocol.messages import UNKNOWN_OUTCOME
from nodes.protocol.resources import Resources
from orchestrator.explain import stop_causes
from orchestrator.explain.reasons import Cause, Final, SlotFailed, cause
from orchestrator.explain.wording import all_of, reason, slots_done, text
from orchestrator.lifecycle import Desired, JobState, JobType, StopCause, Trigger
from orchestrator.scheduling.bad_nodes import AVOID, BadNode, avoided
from orchestrator.scheduling.plan import Place, Stop
from orchestrator.scheduling.slot_scheduler import schedule
from orchestrator.scheduling.slot_set import with_slots
from orchestrator.scheduling.waits import Wait
from orchestrator.scheduling.world import Progress
from tests.scheduling.worlds import (
    GIB,
    NOW,
    cluster,
    execution,
    job_spec,
    node,
    seconds,
    world,
)


def failures(attempts):
    return Progress(attempts=attempts, failed_attempts=attempts)


def refused_before(name, times, until=None):
    return Progress(bad_nodes={name: BadNode(NOW - seconds(60), refused=times, until=until)})


def placed(plan):
    return [(place.slot, place.node) for place in plan.place]


def said(plan):
    return text(all_of(plan.reasons or ()))


def stopped(plan):
    return {stop.execution: stop_causes.sentence(stop.cause, stop.detail) for stop in plan.stop}


# --- placing -----------------------------------------------------------------------------------


def test_each_slot_gets_a_node_of_its_own_while_there_are_enough():
    plan = schedule(world(count=3))
    assert [place.slot for place in plan.place] == [0, 1, 2]
    assert len({place.node for place in plan.place}) == 3
    assert {place.desired for place in plan.place} == {Desired.PENDING}
    assert plan.state is JobState.QUEUED
    assert said(plan) == "waiting for 3 bids from N1, N2 and N3, asked at 2030-01-01 12:00:00 UTC"
    assert plan.tally == {"new": 3}
    assert plan.summary == "placed 3"


def test_more_slots_than_nodes_share_nodes():
    plan = schedule(world(count=10, nodes=["n1", "n2"]))
    assert len(plan.place) == 10
    assert plan.blocked is None


def test_without_approval_executions_are_launched_at_once():
    plan = schedule(world(approval="none"))
    need = Resources(cpu=100, memory=64 * 2**20)
    assert plan.place == (Place(0, 1, "n1", Desired.RUNNING, version=1, need=need),)
    assert said(plan) == "1 execution about to start on N1"


def test_ask_for_bids_from_several_nodes_at_once():
    plan = schedule(world(ask=3, count=2))
    assert [slot for slot, _ in placed(plan)] == [0, 0, 0, 1, 1, 1]
    assert len({name for slot, name in placed(plan) if slot == 0}) == 3


def test_asking_more_nodes_than_there_are_asks_those_there_are():
    plan = schedule(world(ask=5, nodes=["n1", "n2"]))
    assert sorted(placed(plan)) == [(0, "n1"), (0, "n2")]
    assert plan.blocked is None


def test_only_the_missing_slot_is_placed_again():
    live = [execution("running", slot, node=f"n{slot + 1}") for slot in (0, 2)]
    plan = schedule(world(*live, count=3, state=JobState.RUNNING))
    assert [slot for slot, _ in placed(plan)] == [1]
    assert not plan.stop


def test_enough_executions_need_nothing():
    live = [
        execution("ask_for_bid", 0),
        execution("bid_accepted", 1),
        execution("running", 2, node="gone"),
    ]
    plan = schedule(world(*live, count=4, progress=Progress(completed=with_slots(b"", [3]))))
    assert (plan.place, plan.stop, plan.approve, plan.settle) == ((), (), (), ())


def test_the_scheduler_does_not_change_the_cluster():
    here = cluster("n1", "n2")
    before = here.allocated.copy()
    schedule(world(count=20, nodes=here))
    assert (here.allocated == before).all()
    assert schedule(world(count=20, nodes=here)) == schedule(world(count=20, nodes=here))


def test_no_type_without_a_policy_is_decided_about():
    later = world()
    daemon = later.job.spec.model_copy(update={"type": JobType.DAEMON})
    with pytest.raises(LookupError, match="nothing decides about jobs of type 'daemon'"):
        schedule(replace(later, job=replace(later.job, spec=daemon)))


# --- bids --------------------------------------------------------------------------------------


def test_the_only_bid_is_approved():
    bid = execution("ask_for_bid_accepted")
    plan = schedule(world(bid, state=JobState.QUEUED))
    assert plan.approve == (bid.id,)
    assert (plan.state, said(plan)) == (JobState.QUEUED, "1 execution about to start on N1")


def test_of_two_equal_bids_the_older_is_taken_and_the_other_rejected():
    younger = execution("ask_for_bid_accepted", node="n2", created_at=NOW - seconds(1))
    older = execution("ask_for_bid_accepted", node="n1", created_at=NOW - seconds(9))
    plan = schedule(world(younger, older, ask=2))
    assert plan.approve == (older.id,)
    assert plan.stop == (Stop(younger.id, StopCause.SURPLUS_BID, "another bid was taken"),)


def test_the_better_bid_is_taken_even_when_it_is_younger():
    worse = execution("ask_for_bid_accepted", node="far", created_at=NOW - seconds(9))
    better = execution("ask_for_bid_accepted", node="near", created_at=NOW - seconds(1))
    nodes = [node("far"), node("near", zone="a")]
    plan = schedule(world(worse, better, nodes=nodes, affinities=[{"match": "zone = a"}]))
    assert plan.approve == (better.id,)


def test_a_bid_is_rejected_when_its_slot_already_runs():
    runs = execution("running", 0)
    bid = execution("ask_for_bid_accepted", 0, node="n2")
    new = execution("new", 0, node="n3")
    plan = schedule(world(runs, bid, new, ask=3))
    assert stopped(plan) == dict.fromkeys(
        [bid.id, new.id], "its bid was not needed: another execution has its slot"
    )
    assert plan.state is JobState.RUNNING


def test_a_bid_that_was_rejected_by_us_is_not_asked_again_at_once():
    taken = execution("ask_for_bid_accepted", 0)
    ending = execution("ask_for_bid_accepted", 0, node="n2", desired=Desired.STOPPED)
    plan = schedule(world(taken, ending, ask=2))
    assert (plan.approve, plan.stop, plan.place) == ((taken.id,), (), ())


def test_a_node_that_refuses_is_avoided_and_the_slot_asked_elsewhere():
    plan = schedule(world(execution("ask_for_bid_rejected", 0, node="n1")))
    assert avoided(plan.progress.bad_nodes, NOW) == {"n1": NOW + AVOID}
    assert plan.progress.attempts == {}
    [place] = plan.place
    assert place.node != "n1"
    assert place.attempt == 1


def test_when_every_node_refused_the_job_waits_for_time_not_for_capacity():
    plan = schedule(world(execution("ask_for_bid_rejected", 0, node="n1"), nodes=["n1"]))
    assert plan.blocked is None
    assert [(f.at, f.trigger) for f in plan.followups] == [(NOW + AVOID, Trigger.RETRY)]
    assert said(plan) == (
        "waiting for nodes that have refused: 1 of 1 slot; asked again at 2030-01-01 12:00:30 UTC"
    )
    assert plan.summary == "settled 1, 1 waiting for nodes that have refused"


def test_a_node_that_refuses_again_is_avoided_longer_but_not_for_ever():
    refused = execution("ask_for_bid_rejected", 0, node="n1")
    for times, expected in ((1, 60), (3, 240), (50, 300)):
        plan = schedule(world(refused, progress=refused_before("n1", times)))
        assert avoided(plan.progress.bad_nodes, NOW) == {"n1": NOW + seconds(expected)}


def test_a_node_is_asked_again_when_its_time_is_over():
    past = refused_before("n1", 1, until=NOW)
    plan = schedule(world(nodes=["n1"], progress=past))
    assert placed(plan) == [(0, "n1")]
    assert avoided(plan.progress.bad_nodes, NOW) == {}


def test_a_bid_is_withdrawn_from_a_node_that_takes_no_new_work():
    asked = execution("ask_for_bid", 0, node="n1")
    plan = schedule(world(asked, nodes=[node("n1", unready="drains"), node("n2")]))
    assert stopped(plan) == {asked.id: "its node takes no new work any longer"}
    assert placed(plan) == [(0, "n2")]


def test_what_runs_on_a_node_that_takes_no_new_work_goes_on():
    runs = execution("running", 0, node="n1")
    plan = schedule(world(runs, nodes=[node("n1", unready="drains"), node("n2")]))
    assert (plan.stop, plan.place, plan.state) == ((), (), JobState.RUNNING)


# --- the end -----------------------------------------------------------------------------------


def test_a_job_is_completed_when_every_slot_is():
    ended = execution("completed", 1)
    plan = schedule(world(ended, count=3, progress=Progress(completed=with_slots(b"", [0, 2]))))
    assert plan.state is JobState.COMPLETED
    assert plan.progress.completed == with_slots(b"", range(3))
    assert plan.settle == (ended.id,)
    assert plan.followups == ()
    assert plan.tally == {"completed": 1}
    assert said(plan) == "all 3 slots have completed"


def test_a_job_of_no_slots_is_completed_at_once():
    plan = schedule(world(count=0))
    assert (plan.state, said(plan)) == (JobState.COMPLETED, "it asks for no slots")


def test_a_completed_slot_needs_no_second_execution():
    done, extra = execution("completed", 0), execution("running", 0, node="n2")
    plan = schedule(world(done, extra, count=2))
    assert stopped(plan) == {extra.id: "its slot has completed"}
    assert [slot for slot, _ in placed(plan)] == [1]


@pytest.mark.parametrize(
    ("state", "cause", "detail"),
    [
        (JobState.COMPLETED, StopCause.JOB_COMPLETED, ""),
        (JobState.FAILED, StopCause.JOB_FAILED, ""),
        (JobState.STOPPED, StopCause.JOB_STOPPED, "not needed"),
    ],
)
def test_an_ended_job_only_cleans_up(state, cause, detail):
    runs, ended = execution("running", 0), execution("failed", 1)
    view = {"stop_reason": "not needed"}
    plan = schedule(world(runs, ended, count=2, state=state, view=view))
    assert plan.state is state
    assert plan.stop == (Stop(runs.id, cause, detail),)
    assert plan.reasons is None, "why it ended stays as it was written"
    assert plan.settle == (ended.id,)
    assert (plan.place, plan.followups, plan.progress.attempts) == ((), (), {})


def test_a_stopped_job_stops_everything_and_waits_for_the_end():
    runs, bids = execution("running", 0), execution("ask_for_bid_accepted", 1)
    ending = execution("running", 2, desired=Desired.STOPPED)
    plan = schedule(
        world(
            runs,
            bids,
            ending,
            count=5,
            state=JobState.RUNNING,
            view={"stop_requested": True, "stop_reason": "not needed"},
        )
    )
    assert stopped(plan) == dict.fromkeys([runs.id, bids.id], "the job was stopped: not needed")
    assert (plan.state, said(plan)) == (
        JobState.RUNNING,
        "3 executions still to end",
    )
    assert (plan.place, plan.approve, plan.followups) == ((), (), ())


def test_a_stopped_job_says_who_asked_for_it_and_why():
    view = {"stop_requested": True, "stopped_by": "user:ana", "stop_reason": "wrong image"}
    plan = schedule(world(state=JobState.RUNNING, view=view))
    assert (plan.state, said(plan)) == (JobState.STOPPED, "by ana: wrong image")
    assert plan.summary == "the job is stopped by ana: wrong image"


@pytest.mark.parametrize("end", ["cancelled", "lost", "failed", "bid_rejected"])
def test_a_job_is_stopped_when_its_last_execution_has_ended(end):
    plan = schedule(world(execution(end), state=JobState.RUNNING, view={"stop_requested": True}))
    assert (plan.state, said(plan)) == (JobState.STOPPED, "on request")


def test_a_job_whose_slots_completed_is_completed_even_if_it_should_stop():
    plan = schedule(world(execution("completed"), view={"stop_requested": True}))
    assert plan.state is JobState.COMPLETED


# --- attempts ----------------------------------------------------------------------------------


def test_a_failed_slot_waits_and_is_then_tried_again():
    failed = execution("failed", 0, message="exit code 1")
    first = schedule(world(failed, state=JobState.RUNNING))
    at = NOW + seconds(5)
    assert (first.place, first.progress.retry_at, first.progress.attempts) == ((), {0: at}, {0: 1})
    assert [(f.at, f.trigger) for f in first.followups] == [(at, Trigger.RETRY)]
    assert first.state is JobState.QUEUED
    assert said(first) == (
        "slot 0 failed on N1 at attempt 1 of 3: exit code 1;"
        " 1 slot is tried again at 2030-01-01 12:00:05 UTC"
    )
    second = schedule(world(now=at, progress=first.progress, state=JobState.QUEUED))
    assert [(place.slot, place.attempt) for place in second.place] == [(0, 2)]
    assert second.place[0].node != "n1", "the node where it failed comes last"


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        ("constant", [10, 10, 10, 10]),
        ("linear", [10, 20, 30, 35]),
        ("exponential", [10, 20, 35, 35]),
    ],
)
def test_back_off_grows_as_the_job_says(backoff, waits):
    retry = {"attempts": 9, "backoff": backoff, "delay": "10s", "max_delay": "35s"}
    for attempt, wait in enumerate(waits, start=1):
        before = Progress(failed_attempts={0: attempt - 1})
        plan = schedule(world(execution("failed", attempt=attempt), retry=retry, progress=before))
        assert plan.progress.retry_at == {0: NOW + seconds(wait)}


def test_the_job_fails_with_its_first_slot_that_exhausts_its_attempts():
    failed = execution("failed", 1, attempt=3, message="exit code 7")
    runs = execution("running", 0, node="n2")
    plan = schedule(world(failed, runs, count=3, progress=failures({1: 2})))
    assert plan.state is JobState.FAILED
    assert said(plan) == "slot 1 failed on N1 at attempt 3 of 3: exit code 7"
    assert stopped(plan) == {runs.id: "the job failed"}
    assert plan.place == ()


def test_what_a_task_returned_is_said_as_a_number():
    failed = execution("failed", exit_code=1, code="exit-code", message="the task exited with 1")
    plan = schedule(world(failed, retry={"attempts": 1}))
    assert plan.reasons == (
        SlotFailed(0, "N1", 1, 1, final=Final.ATTEMPTS, exit_code=1, code="exit-code",
                   message="the task exited with 1"),
    )  # fmt: skip
    assert said(plan) == "slot 0 failed on N1 at attempt 1 of 1: exit 1"


def test_a_slot_that_backs_off_is_delayed_however_full_the_cluster_is():
    full = [node("n1", used=(4000, 0, 0, 0))]
    plan = schedule(world(execution("failed"), nodes=full, state=JobState.RUNNING))
    assert [cause(it) for it in plan.reasons] == [Cause.DELAYED]
    assert (plan.blocked, plan.record) == (None, None)


def test_the_newest_failure_is_told_until_nothing_is_tried_again():
    progress = schedule(world(execution("failed", message="no disk"))).progress
    assert progress.last_failure.message == "no disk"
    later = schedule(world(now=NOW + seconds(9), progress=progress))
    assert later.progress.last_failure is None


def test_a_failure_that_cannot_be_cured_ends_the_slot_at_once():
    plan = schedule(world(execution("failed", retryable=False, message="no such program")))
    assert plan.state is JobState.FAILED
    assert said(plan) == (
        "slot 0 failed on N1 at attempt 1 of 3: no such program; trying again would not help"
    )


def test_what_no_node_can_be_told_ends_the_job_and_what_was_cancelled_otherwise_does_not():
    plan = schedule(world(execution("cancelled", retryable=False, message="too large")))
    assert plan.state is JobState.FAILED
    assert said(plan) == (
        "slot 0 could not be given to N1 at attempt 1 of 3: too large; trying again would not help"
    )
    assert schedule(world(execution("cancelled"))).state is JobState.QUEUED


@pytest.mark.parametrize("end", ["cancelled", "bid_rejected", "ask_for_bid_rejected"])
def test_what_is_not_the_tasks_fault_is_no_attempt(end):
    plan = schedule(world(execution(end), progress=Progress(attempts={0: 2})))
    assert plan.progress.attempts == {0: 2}
    assert [(place.slot, place.attempt) for place in plan.place] == [(0, 3)]


def test_one_attempt_counts_once_however_often_it_is_reported():
    again = Progress(attempts={0: 1}, retry_at={0: NOW + seconds(4)})
    plan = schedule(world(execution("failed", attempt=1), progress=again))
    assert (plan.progress.attempts, plan.progress.retry_at) == (again.attempts, again.retry_at)


# --- interruptions -----------------------------------------------------------------------------

LOST = {"cause": StopCause.NODE_LOST, "message": "its node has been silent too long"}
REBOOTED = {"code": UNKNOWN_OUTCOME, "message": "the machine was restarted while the task ran"}
INTERRUPTED = pytest.mark.parametrize("it", [("lost", LOST), ("failed", REBOOTED)])


def interrupted(it, **differing):
    observed, ended = it
    return execution(observed, **{**ended, **differing})


@INTERRUPTED
def test_an_interruption_costs_no_attempt_and_no_time(it):
    plan = schedule(world(interrupted(it), retry={"attempts": 1}))
    assert (plan.progress.failed_attempts, plan.progress.retry_at) == ({}, {})
    assert (plan.progress.attempts, plan.progress.interruptions) == ({0: 1}, {0: 1})
    [place] = plan.place
    assert (place.slot, place.attempt) == (0, 2)
    assert place.node != "n1", "the node where it was interrupted comes last"


@INTERRUPTED
def test_a_job_that_gives_up_what_is_lost_runs_each_slot_once_at_most(it):
    plan = schedule(world(interrupted(it), execution("running", 1), count=2, on_lost="fail"))
    happened = "was lost with" if it[0] == "lost" else "was interrupted on"
    assert (plan.state, plan.place) == (JobState.FAILED, ())
    assert said(plan) == f"slot 0 {happened} N1: {it[1]['message']}; on_lost is fail"
    assert [stop.cause for stop in plan.stop] == [StopCause.JOB_FAILED]


@INTERRUPTED
def test_a_slot_is_given_up_when_it_was_interrupted_too_often(it):
    before = Progress(interruptions={0: 2}, attempts={0: 2})
    once_more = world(interrupted(it, attempt=3), progress=before, retry={"max_interruptions": 3})
    assert schedule(once_more).state is JobState.QUEUED
    too_often = world(interrupted(it, attempt=3), progress=before, retry={"max_interruptions": 2})
    plan = schedule(too_often)
    assert (plan.state, cause(*plan.reasons)) == (JobState.FAILED, Cause.FAILED)
    assert said(plan).endswith("; it is interruption 3, and 2 are allowed")


@pytest.mark.parametrize(
    ("before", "wait"), [(0, 0), (1, 10), (2, 20), (5, 160), (9, 300), (9_999, 300)]
)
def test_what_ends_in_the_dark_again_and_again_waits_as_after_so_many_failures(before, wait):
    """A task that kills its own supervisor would run without a pause."""
    progress = Progress(interruptions={0: before}, attempts={0: before})
    job = {"progress": progress, "retry": {"attempts": 1, "max_interruptions": 10_000}}
    again = schedule(world(interrupted(("failed", REBOOTED), attempt=before + 1), **job))
    later = {0: NOW + seconds(wait)} if wait else {}
    assert (again.progress.retry_at, again.progress.failed_attempts) == (later, {})
    assert len(again.place) == (0 if wait else 1)
    lost = schedule(world(interrupted(("lost", LOST), attempt=before + 1), **job))
    assert (lost.progress.retry_at, len(lost.place)) == ({}, 1)


def test_what_ended_in_the_dark_long_ago_waits_no_longer():
    progress = Progress(interruptions={0: 1}, attempts={0: 1})
    ended = {"attempt": 2, "ended_at": NOW - seconds(10)}
    plan = schedule(world(interrupted(("failed", REBOOTED), **ended), progress=progress))
    assert (plan.progress.retry_at, len(plan.place)) == ({}, 1)


def test_what_may_have_run_is_an_interruption_although_nobody_has_seen_it_run():
    plan = schedule(world(interrupted(("lost", LOST), started_at=None), on_lost="fail"))
    assert plan.state is JobState.FAILED
    again = schedule(world(interrupted(("lost", LOST), started_at=None)))
    assert (again.progress.interruptions, again.progress.bad_nodes) == ({0: 1}, {})


@pytest.mark.parametrize("why", [StopCause.BID_LOST, StopCause.CONSTRAINTS_UNMET])
@INTERRUPTED
def test_what_was_not_approved_or_told_to_stop_before_is_no_interruption(it, why):
    plan = schedule(world(interrupted(it, cause=why), on_lost="fail"))
    assert (plan.state, plan.progress.interruptions) == (JobState.QUEUED, {})
    assert (plan.progress.attempts, plan.progress.failed_attempts) == ({}, {})


def test_what_ran_too_long_and_was_then_lost_is_the_attempt_that_it_was():
    failed = Progress(attempts={0: 1}, failed_attempts={0: 1})
    plan = schedule(world(interrupted(("lost", LOST)), progress=failed, on_lost="fail"))
    assert (plan.state, plan.progress.interruptions) == (JobState.QUEUED, {})


def test_interruptions_of_before_do_not_count_for_a_job_that_is_wanted_anew():
    before = Progress(round=1, since=NOW - seconds(999), interruptions={0: 9}, attempts={0: 9})
    plan = schedule(world(progress=before))
    assert (plan.progress.interruptions, plan.progress.attempts) == ({}, {0: 9})


def test_a_completed_slot_is_as_all_begin():
    before = Progress(interruptions={0: 1}, attempts={0: 1})
    plan = schedule(world(execution("completed", attempt=2), progress=before))
    assert plan.progress.slots == {}


# --- lost nodes --------------------------------------------------------------------------------


def test_a_job_that_waits_for_lost_nodes_keeps_their_slots():
    lost = execution("lost", 0, node="n1")
    plan = schedule(world(lost, on_lost="wait", count=1))
    assert (plan.settle, plan.place, plan.state) == ((), (), JobState.QUEUED)
    assert said(plan) == "1 slot waiting for a lost node to return: N1"


def test_a_job_that_waits_goes_on_when_the_node_says_it_is_gone():
    gone = execution("lost", 0, reserved=False)
    plan = schedule(world(gone, on_lost="wait"))
    assert (plan.settle, plan.progress.interruptions) == ((gone.id,), {0: 1})
    assert len(plan.place) == 1


# --- versions, rounds, counts ------------------------------------------------------------------


def test_executions_of_a_replaced_version_are_stopped_and_their_slots_placed_again():
    old, new = execution("running", 0), execution("running", 1, generation="two")
    plan = schedule(world(old, new, count=2, view={"version": 2, "generation": "two"}))
    assert stopped(plan) == {old.id: "the job has a newer version"}
    assert [slot for slot, _ in placed(plan)] == [0]


def test_a_version_that_changes_no_task_replaces_nothing():
    plan = schedule(world(execution("running"), view={"version": 5}))
    assert (plan.stop, plan.place) == ((), ())


@pytest.mark.parametrize("end", ["completed", "failed", "lost"])
def test_what_an_old_version_or_round_did_is_history(end):
    for it in (execution(end, generation="one", round=2), execution(end, generation="two")):
        current = {"version": 2, "generation": "two", "round": 2}
        plan = schedule(world(it, view=current))
        assert plan.settle == (it.id,)
        assert (plan.progress.completed, plan.progress.attempts) == (b"", {})
        assert len(plan.place) == 1


def test_executions_of_an_earlier_round_are_stopped():
    old = execution("running", 0)
    plan = schedule(world(old, view={"round": 2}))
    assert stopped(plan) == {old.id: "the job was run again"}
    assert [slot for slot, _ in placed(plan)] == [0]


def test_a_smaller_job_stops_its_higher_slots():
    live = [execution("running", slot) for slot in range(4)]
    plan = schedule(world(*live, count=2))
    assert stopped(plan) == dict.fromkeys([live[2].id, live[3].id], "the job needs fewer slots")


def test_the_failure_of_a_slot_that_is_not_wanted_any_longer_fails_nothing():
    plan = schedule(world(execution("failed", 7, attempt=3), count=2))
    assert plan.state is not JobState.FAILED


# --- time --------------------------------------------------------------------------------------


def test_the_scheduler_stops_what_the_agent_did_not():
    late = execution("running", started_at=NOW - seconds(60 + 10 + 30))
    plan = schedule(world(late, timeouts={"execution": "60s"}, state=JobState.RUNNING))
    assert stopped(plan) == {late.id: "it ran longer than the job allows"}
    assert plan.progress.attempts == {0: 1}
    assert plan.place == ()
    again = schedule(
        world(
            execution("failed", attempt=1, code="timeout"),
            timeouts={"execution": "60s"},
            progress=plan.progress,
        )
    )
    assert again.progress.attempts == {0: 1}


def test_an_execution_in_its_time_is_looked_at_when_it_would_be_over():
    runs = execution("running", started_at=NOW)
    plan = schedule(world(runs, timeouts={"execution": "60s"}))
    assert [(f.at, f.trigger) for f in plan.followups] == [
        (NOW + seconds(100), Trigger.EXECUTION_TIMEOUT)
    ]
    assert not plan.stop


def test_a_job_that_takes_too_long_in_total_fails():
    runs = execution("running", 0)
    plan = schedule(world(runs, timeouts={"total": "60s"}, state=JobState.RUNNING))
    assert plan.state is JobState.FAILED
    assert said(plan) == "it took longer than the 1m the job may take in total"
    assert stopped(plan) == {runs.id: "the job took too long"}


def test_the_longest_times_that_a_job_may_say_are_on_the_calendar():
    longest = {"execution": "366d", "queue": "366d", "total": "366d"}
    retry = {"attempts": 100, "delay": "7d", "max_delay": "7d", "backoff": "exponential"}
    failed, runs = execution("failed", 0, attempt=99), execution("running", 1, started_at=NOW)
    plan = schedule(
        world(
            failed,
            runs,
            count=4,
            timeouts=longest,
            retry=retry,
            grace="1h",
            nodes=[node("n1", cpu=150)],
        )
    )
    assert {it.trigger: it.at - NOW for it in plan.followups} == {
        Trigger.RETRY: seconds(7 * 86400),
        Trigger.EXECUTION_TIMEOUT: seconds(366 * 86400 + 3600 + 30),
        Trigger.JOB_TIMEOUT: seconds(366 * 86400 - 60),
        Trigger.QUEUE_TIMEOUT: seconds(366 * 86400),
    }


def test_unplaced_work_fails_at_once_with_a_queue_timeout_of_zero():
    plan = schedule(world(timeouts={"queue": 0}, resources={"cpu": 8}))
    assert plan.state is JobState.FAILED
    assert said(plan) == (
        "1 of 1 slot found no place at once: "
        "impossible: needs 8 cores, the largest of 4 nodes has 4 cores"
    )


def test_a_job_that_was_refused_is_not_said_to_lack_room():
    refused = execution("ask_for_bid_rejected", 0, node="n1")
    plan = schedule(world(refused, nodes=["n1"], timeouts={"queue": 0}))
    assert plan.state is JobState.FAILED
    assert said(plan) == "1 of 1 slot found no place at once: refused by N1"


def test_a_slot_that_fails_goes_to_another_node_each_time():
    """Three bad nodes look best, and only the empty one is good."""
    bad = [node(f"n{i}", used=(3000, 6 * GIB, 0, 0)) for i in range(1, 4)]
    progress, went = Progress(), []
    for attempt in range(1, 5):
        later = NOW + seconds(1000 * attempt)
        again = world(nodes=[*bad, "n4"], now=later, progress=progress, retry={"attempts": 9})
        [place] = schedule(again).place
        went.append(place.node)
        failed = execution("failed", node=place.node, attempt=attempt, ended_at=later)
        progress = schedule(replace(again, executions=(failed,))).progress
    assert went == ["n1", "n2", "n3", "n4"]


def test_unplaced_work_waits_as_long_as_the_job_says():
    first = schedule(world(count=2, nodes=[node("n1", cpu=100)], timeouts={"queue": "30s"}))
    assert [place.slot for place in first.place] == [0]
    assert first.progress.waiting_since == NOW
    due = NOW + seconds(30)
    assert (due, Trigger.QUEUE_TIMEOUT) in [(f.at, f.trigger) for f in first.followups]
    full = node("n1", cpu=100, used=(100, 0, 0, 0))
    runs = execution("running", 0)
    second = schedule(
        world(
            runs,
            count=2,
            nodes=[full],
            now=due,
            timeouts={"queue": "30s"},
            progress=first.progress,
            state=JobState.RUNNING,
        )
    )
    assert second.state is JobState.FAILED
    assert stopped(second) == {runs.id: "the job took too long: no place was found in time"}


def test_waiting_ends_when_everything_has_a_place():
    waited = Progress(waits=(Wait(NOW - seconds(50)),))
    plan = schedule(world(execution("running"), progress=waited))
    assert plan.progress.waiting_since is None


# --- waiting for capacity ----------------------------------------------------------------------


def test_what_does_not_fit_is_blocked_with_numbers():
    nodes = [node("n1", memory=GIB), node("n2", memory=GIB // 2)]
    plan = schedule(world(count=3, nodes=nodes, resources={"memory": "1GiB"}))
    assert placed(plan) == [(0, "n1")]
    assert (plan.blocked.missing, plan.blocked.impossible) == (2, False)
    assert plan.summary == "placed 1, 2 waiting for capacity"
    assert plan.record["known"] == 2


def test_full_is_not_impossible():
    full = node("n1", used=(4000, 0, 0, 0))
    plan = schedule(world(nodes=[full], resources={"cpu": "500m"}))
    assert not plan.blocked.impossible
    assert said(plan) == (
        "waiting for capacity: 1 of 1 slot; short of 0.5 cores on the only node that fits"
    )


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        (
            {"resources": {"memory": "9GiB"}},
            "impossible: needs 9 GiB memory, the largest of 4 nodes has 8 GiB memory",
        ),
        ({"constraints": ["gpu"]}, "impossible: none of 4 nodes satisfies gpu"),
        (
            {"task": {"command": ["x"], "driver": "wasm"}},
            "impossible: none of 4 nodes has the driver wasm",
        ),
    ],
)
def test_what_no_node_could_ever_run_is_called_impossible(job, sentence):
    plan = schedule(world(**job))
    assert plan.blocked.impossible
    assert text(reason(plan.blocked.why)) == sentence
    assert plan.state is JobState.QUEUED


def test_nodes_that_take_no_work_now_make_nothing_impossible():
    nodes = [node("n1", unready="drains"), node("n2", unready="is lost")]
    plan = schedule(world(nodes=nodes))
    assert not plan.blocked.impossible
    assert text(reason(plan.blocked.why)) == (
        "2 nodes could run it but take no new work: 1 drains, 1 is lost"
    )


def test_an_empty_cluster_makes_jobs_wait():
    plan = schedule(world(nodes=[]))
    assert said(plan) == "waiting for capacity: 1 of 1 slot; there is no node"
    assert not plan.blocked.impossible


def test_what_waits_above_the_last_slot_is_waited_for_no_longer():
    later = Progress(failed_attempts={5: 1}, retry_at={5: NOW + seconds(60)})
    runs, lost = execution("running", 0), execution("lost", 4)
    plan = schedule(world(runs, lost, count=1, on_lost="wait", progress=later))
    assert (plan.reasons, plan.followups, plan.settle) == ((), (), (lost.id,))


def test_a_slot_that_went_and_came_again_counts_its_new_execution_apart_from_the_old_one():
    ending = execution("running", 1, desired=Desired.STOPPED, attempt=1)
    plan = schedule(world(execution("running", 0), ending, count=2))
    assert [(place.slot, place.attempt) for place in plan.place] == [(1, 2)]


def test_a_job_that_was_asked_for_bids_only_is_not_running_while_it_stops():
    asked = execution("ask_for_bid", 0)
    plan = schedule(world(asked, state=JobState.QUEUED, view={"stop_requested": True}))
    assert (plan.state, stopped(plan)) == (JobState.QUEUED, {asked.id: "the job was stopped"})


def test_a_job_of_no_slots_tells_what_runs_so():
    it = execution("running", 0)
    plan = schedule(world(it, count=0))
    assert stopped(plan) == {it.id: "the job needs fewer slots"}


def test_nobody_waits_for_lost_nodes_once_the_job_has_ended():
    lost, failed = execution("lost", 0), execution("failed", 1)
    plan = schedule(world(lost, failed, count=2, on_lost="wait", retry={"attempts": 1}))
    assert plan.state is JobState.FAILED
    assert set(plan.settle) == {lost.id, failed.id}
    assert plan.progress.outcomes == {"lost": 1, "failed": 1}


def test_a_slow_stop_of_a_job_that_has_failed_is_no_attempt():
    long = execution("running", 0, started_at=NOW - seconds(9999), desired=Desired.STOPPED)
    plan = schedule(world(long, state=JobState.FAILED, timeouts={"execution": "1m"}))
    assert (plan.progress.failed, plan.progress.attempts) == (None, {})


# --- wanted anew -------------------------------------------------------------------------------


def test_a_failed_job_that_is_wanted_anew_tries_what_it_had_given_up():
    failed = SlotFailed(1, "N1", 3, 3, final=Final.ATTEMPTS)
    before = Progress(
        round=1,
        since=NOW - seconds(999),
        completed=with_slots(b"", [0]),
        attempts={1: 3},
        failed_attempts={1: 3},
        failed=failed,
        waits=(Wait(NOW - seconds(900)),),
    )
    plan = schedule(world(count=2, progress=before, timeouts={"queue": "1m"}))
    assert [(place.slot, place.attempt) for place in plan.place] == [(1, 4)]
    assert (plan.progress.failed, plan.progress.failed_attempts) == (None, {})
    assert plan.progress.since == NOW - seconds(60)


def test_in_another_round_nothing_that_was_achieved_counts():
    before = Progress(round=1, since=NOW - seconds(60), completed=with_slots(b"", [0, 1]))
    plan = schedule(world(count=2, progress=before, view={"round": 2}))
    assert len(plan.place) == 2
    assert (plan.progress.round, plan.progress.completed) == (2, b"")


def test_what_an_earlier_release_kept_counts_in_the_round_that_it_was_of():
    plan = schedule(world(count=2, progress=Progress(completed=with_slots(b"", [0, 1]))))
    assert plan.state is JobState.COMPLETED


@pytest.mark.parametrize("now", [{}, {"timeouts": {"execution": "2h"}}])
def test_what_began_under_a_limit_is_stopped_by_that_one_whatever_the_job_says_now(now):
    long = execution("running", 0, version=1, started_at=NOW - seconds(999))
    wanted = world(long, view={"version": 2}, **now)
    plan = schedule(replace(wanted, specs={1: job_spec(timeouts={"execution": "1m"})}))
    assert stopped(plan) == {long.id: "it ran longer than the job allows"}
    assert all(followup.at > NOW for followup in plan.followups)


def test_what_began_without_a_limit_goes_on_without_one():
    long = execution("running", 0, version=1, started_at=NOW - seconds(999))
    wanted = world(long, view={"version": 2}, timeouts={"execution": "1m"})
    plan = schedule(replace(wanted, specs={1: job_spec()}))
    assert (plan.stop, plan.followups) == ((), ())


# --- constraints -------------------------------------------------------------------------------


def test_what_runs_where_it_may_not_is_moved_and_the_rest_goes_on():
    nodes = [node("n1", zone="a"), node("n2", zone="b"), node("n3", zone="b")]
    right, wrong = execution("running", 0, node="n2"), execution("running", 1, node="n1")
    plan = schedule(world(right, wrong, nodes=nodes, count=2, constraints=["zone = b"]))
    assert stopped(plan) == {wrong.id: "its node is not as the job wants it any longer"}
    assert placed(plan) == [(1, "n3")]


# --- what is said of slots that no longer count ------------------------------------------------


def test_a_slot_above_the_lowered_count_is_not_one_of_those_that_have_completed():
    runs = [execution("running", slot, node="n1") for slot in (0, 1)]
    done = Progress(completed=with_slots(b"", [7, 9]), outcomes={"completed": 2})
    plan = schedule(world(*runs, count=2, progress=done))
    assert slots_done(plan.tally, 2) == 0


def test_what_completes_after_its_job_has_failed_is_counted_as_completed():
    done = execution("completed", 0)
    failed = SlotFailed(slot=1, node="N2", attempt=1, attempts=1, final=Final.ATTEMPTS)
    before = Progress(failed=failed, outcomes={"failed": 1})
    plan = schedule(world(done, count=2, progress=before, state=JobState.FAILED))
    assert plan.tally == {"completed": 1, "failed": 1}
