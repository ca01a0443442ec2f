"""What holds for every world, and that a cluster which obeys the plans gets its jobs done."""

from functools import partial

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from nodes.protocol.messages import UNKNOWN_OUTCOME
from orchestrator.lifecycle import (
    ENDED,
    JOB,
    OBSERVED,
    Desired,
    IllegalTransition,
    JobState,
    Observed,
    StopCause,
    is_interruption,
)
from orchestrator.scheduling.bad_nodes import BadNode, avoided
from orchestrator.scheduling.bids import BidScorer
from orchestrator.scheduling.feasibility import as_wanted
from orchestrator.scheduling.reconcile import (
    REPLACE,
    STOP,
    SlotFacts,
    finished,
    is_as_wanted,
    reconcile,
)
from orchestrator.scheduling.replacement import Budget
from orchestrator.scheduling.running import with_exceptions
from orchestrator.scheduling.slot_history import OVERRUN, slot_history
from orchestrator.scheduling.slot_scheduler import has_ended, question, schedule
from orchestrator.scheduling.slot_set import flags, of_ranges, with_slots
from orchestrator.scheduling.waits import Wait
from orchestrator.scheduling.world import Progress
from orchestrator.spec import OnLost
from tests.scheduling.worlds import (
    NOW,
    execution,
    in_columns,
    node,
    seconds,
    unordered,
    world,
)

NODES = ("n1", "n2", "n3")
#: Seconds after which an execution that may run for 60 is waited for no longer.
OVER = 60 + 10 + OVERRUN.total_seconds()


@st.composite
def executions(draw):
    """At most one wanted execution a slot, as the database guarantees; otherwise anything."""
    found, wanted = [], set()
    for _ in range(draw(st.integers(0, 10))):
        slot = draw(st.integers(0, 5))
        observed = draw(st.sampled_from(sorted(Observed)))
        desired = draw(st.sampled_from(sorted(Desired)))
        if observed in OBSERVED.terminal:
            desired = Desired.STOPPED
        if desired is Desired.RUNNING and slot in wanted:
            desired = Desired.STOPPED
        if desired is Desired.RUNNING:
            wanted.add(slot)
        found.append(
            execution(
                observed,
                slot,
                desired=desired,
                node=draw(st.sampled_from([*NODES, "gone"])),
                attempt=draw(st.integers(1, 4)),
                generation=draw(st.sampled_from(["one", "two"])),
                round=draw(st.integers(1, 2)),
                retryable=draw(st.booleans()),
                reserved=draw(st.booleans()),
                code=draw(st.sampled_from(["", UNKNOWN_OUTCOME])),
                cause=draw(st.sampled_from(["", *StopCause])),
                started_at=draw(st.none() | st.sampled_from([NOW, NOW - seconds(500)])),
            )
        )
    return found


@st.composite
def worlds(draw):
    count = draw(st.integers(0, 6))
    job = {
        "count": count,
        "approval": draw(st.sampled_from(["bid", "none"])),
        "on_lost": draw(st.sampled_from(sorted(OnLost))),
        "timeouts": {
            "execution": draw(st.sampled_from([None, 60])),
            "queue": draw(st.sampled_from([None, 0, 60])),
            "total": draw(st.sampled_from([None, 60, 600])),
        },
        "resources": {"cpu": draw(st.sampled_from(["100m", 1, 3, 50]))},
    }
    if job["approval"] == "bid":
        job["ask"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        job["spread"] = [{"over": "zone"}]
    if draw(st.booleans()):
        job["constraints"] = ["zone = a"]
    nodes = [
        node(
            name,
            cpu=draw(st.sampled_from([1000, 4000])),
            used=(draw(st.sampled_from([0, 500, 1000])), 0, 0, 0),
            unready=draw(st.sampled_from(["", "", "drains"])),
            zone=draw(st.sampled_from("ab")),
        )
        for name in NODES
    ]
    completed = draw(st.sets(st.integers(0, 7)))
    progress = Progress(
        completed=with_slots(b"", completed),
        attempts=draw(st.dictionaries(st.integers(0, 5), st.integers(1, 2), max_size=3)),
        bad_nodes=dict.fromkeys(
            draw(st.sets(st.sampled_from(NODES))), BadNode(NOW, refused=1, until=NOW + seconds(9))
        ),
        waits=draw(st.sampled_from([(), (Wait(NOW - seconds(100)),), (Wait(NOW, b"\3"),)])),
    )
    return world(
        *draw(executions()),
        nodes=nodes,
        progress=progress,
        state=draw(st.sampled_from(sorted(JobState))),
        view={
            "generation": draw(st.sampled_from(["one", "two"])),
            "round": draw(st.integers(1, 2)),
            "stop_requested": draw(st.booleans()),
        },
        **job,
    )


def diff_of(w, most=None):
    """What reconciling finds, when *most* slots may have nothing at once; as for a batch: all."""
    history = slot_history(w)
    ending = has_ended(w, history)
    unwanted = ending.why if ending else None
    diff = reconcile(
        w,
        history,
        unwanted=unwanted,
        score_bids=BidScorer(w.room, partial(question, w, history)),
        budget=Budget(max_unavailable=most or max(w.job.count, 1)),
    )
    return history, unwanted, diff


@given(worlds())
def test_every_live_execution_is_kept_or_stopped_or_ending_and_never_two_of_them(w):
    _, _, diff = diff_of(w)
    told = [
        *(it.id for it in (*diff.keep, *diff.hold)),
        *(stop.execution for stop in diff.stop),
        *(it.id for it in diff.ending),
    ]
    assert sorted(told) == sorted(it.id for it in w.executions if it.observed in OBSERVED.live)


@given(worlds())
def test_what_is_as_wanted_is_what_no_rule_speaks_against(w):
    history = slot_history(w)
    suits = as_wanted(w.nodes, w.job.spec.requirements)
    facts = SlotFacts(w, history, finished(w, history), suits)
    for it in w.executions:
        if it.observed in OBSERVED.live and it.desired is Desired.RUNNING:
            # In order: those after the first that holds may not be asked.
            speaks = any(holds(facts, it) for _, holds in (*STOP, *REPLACE))
            assert is_as_wanted(facts, it) is not speaks


@given(worlds())
def test_kept_missing_completed_and_waiting_slots_together_are_the_job(w):
    history, unwanted, diff = diff_of(w)
    kept = {it.slot for it in diff.keep}
    assert kept.isdisjoint(diff.missing)
    if unwanted:
        assert (kept, diff.missing) == (set(), ())
        return
    done = {slot for slot, byte in enumerate(finished(w, history)) if byte}
    waiting = {*history.progress.retry_at, *(it.slot for it in history.held)}
    slots = set(range(w.job.spec.count))
    assert (kept | set(diff.missing) | done | waiting) & slots == slots
    assert done.isdisjoint(kept | set(diff.missing))


@given(worlds())
def test_at_most_one_execution_a_slot_is_wanted_after_the_plan(w):
    plan = schedule(w)
    stopped = {stop.execution for stop in plan.stop}
    wanted = [
        it.slot
        for it in w.executions
        if it.observed in OBSERVED.live
        and it.id not in stopped
        and (it.desired is Desired.RUNNING or it.id in plan.approve)
    ]
    wanted += [place.slot for place in plan.place if place.desired is Desired.RUNNING]
    assert len(wanted) == len(set(wanted))
    assert not stopped & set(plan.approve)


@given(worlds())
def test_only_ended_executions_are_settled_and_only_bids_are_approved(w):
    plan = schedule(w)
    by_id = {it.id: it for it in w.executions}
    assert all(by_id[it].observed in OBSERVED.terminal for it in plan.settle)
    assert all(by_id[it].observed is Observed.ASK_FOR_BID_ACCEPTED for it in plan.approve)
    assert all(by_id[it].desired is Desired.PENDING for it in plan.approve)
    assert all(by_id[it.execution].desired is not Desired.STOPPED for it in plan.stop)


@given(worlds())
def test_nothing_is_placed_where_it_does_not_fit_or_may_not_go(w):
    plan = schedule(w)
    here = w.room
    left = here.nodes.capacity - here.allocated
    for place in plan.place:
        row = here.nodes.index[place.node]
        left[row] -= np.array(place.need.astuple())
        assert here.nodes.ready[row]
        assert place.node not in avoided(plan.progress.bad_nodes, NOW)
    assert (left[[here.nodes.index[place.node] for place in plan.place]] >= 0).all()
    pairs = [(place.slot, place.node) for place in plan.place]
    assert len(pairs) == len(set(pairs)), "the nodes asked for one slot are different"
    assert all(0 <= place.slot < w.job.spec.count for place in plan.place)


@given(worlds())
def test_states_move_as_the_table_allows_and_a_queued_job_has_a_reason(w):
    plan = schedule(w)
    if plan.state is not w.job.state:
        targets = JOB.table[w.job.state].values()
        assert plan.state in targets, IllegalTransition(w.job.state, plan.state)
    if plan.state is JobState.QUEUED:
        assert plan.reasons
    if plan.state is JobState.STOPPED and w.job.state not in ENDED:
        assert not any(it.observed in OBSERVED.live for it in w.executions)
    if plan.state not in ENDED:
        assert all(followup.at > w.now for followup in plan.followups)
        assert list(plan.followups) == sorted(plan.followups, key=lambda it: it.at)


@given(worlds())
def test_a_job_that_has_not_ended_is_never_forgotten(w):
    """Something is live, or placed, or blocked, or time will bring the job back."""
    plan = schedule(w)
    if plan.state in ENDED:
        return
    stopped = {stop.execution for stop in plan.stop}
    live = [it for it in w.executions if it.observed in OBSERVED.live and it.id not in stopped]
    held = [it for it in w.executions if it.observed is Observed.LOST and it.reserved]
    assert live or stopped or held or plan.place or plan.blocked or plan.followups


@given(worlds())
def test_deciding_twice_decides_the_same(w):
    assert schedule(w) == schedule(w)


@st.composite
def large(draw):
    """A job of which much runs as it was told, and little is otherwise."""
    ago = draw(st.dictionaries(st.integers(0, 6), st.sampled_from([0, 40, OVER, 500]), min_size=1))
    running = [
        execution("running", slot, node=[*NODES, "gone"][slot % 4], started_at=NOW - seconds(it))
        for slot, it in ago.items()
    ]
    others = [it for it in draw(executions()) if it.slot not in ago or it.desired != "running"]
    completed = draw(st.sets(st.integers(0, 6), max_size=1))
    return world(
        *running,
        *others[:1],
        nodes=[node(name, cpu=1000, zone=draw(st.sampled_from("aab"))) for name in NODES],
        progress=Progress(completed=with_slots(b"", completed)),
        state=draw(st.sampled_from([JobState.QUEUED, JobState.RUNNING])),
        view={"stop_requested": draw(st.sampled_from([False, False, False, True]))},
        count=draw(st.integers(4, 8)),
        retry={"attempts": 9},
        timeouts={"execution": draw(st.sampled_from([None, 60]))},
        constraints=draw(st.sampled_from([[], ["zone = a"]])),
        resources={"cpu": "200m"},
    )


@given(large() | worlds())
def test_what_is_decided_does_not_depend_on_how_the_executions_are_read(w):
    """Those of a large job that run as they were told come in columns."""
    assert unordered(schedule(in_columns(w))) == unordered(schedule(w))


@given(large(), st.integers(1, 6))
def test_no_more_is_replaced_at_once_when_what_runs_is_read_in_columns(w, most):
    _, unwanted, diff = diff_of(w, most)
    assume(not unwanted)
    _, _, read = diff_of(with_exceptions(in_columns(w)), most)
    assert {it.execution for it in read.stop} == {it.execution for it in diff.stop}
    assert (read.hold, read.missing) == (diff.hold, diff.missing)


def test_a_job_is_looked_at_again_when_the_first_of_what_runs_as_told_may_run_no_longer():
    """Whatever the rest may."""
    ran = [execution("running", slot, started_at=NOW - seconds(9 * slot)) for slot in range(4)]
    job = {"count": 4, "timeouts": {"execution": 60}, "state": JobState.RUNNING}
    [again] = schedule(in_columns(world(*ran, **job))).followups
    assert again.at == NOW + seconds(OVER - 27)


def test_of_what_runs_as_told_one_is_looked_at_only_where_something_is_said_of_it():
    w = world(*(execution("running", slot) for slot in range(5)), count=4)
    assert [it.slot for it in with_exceptions(in_columns(w)).executions] == [4]


@given(worlds())
def test_the_tally_counts_every_execution_once(w):
    plan = schedule(w)
    others = sum(n for state, n in plan.tally.items() if state != Observed.COMPLETED)
    completed = [it for it in w.executions if it.observed is Observed.COMPLETED]
    assert others == len(w.executions) - len(completed) + len(plan.place)
    done = finished(w, slot_history(w)).count(1)
    assert plan.tally.get(Observed.COMPLETED, 0) == min(len(completed), done)


@given(st.sets(st.integers(0, 90)), st.sets(st.integers(0, 90)), st.integers(0, 99))
def test_slots_are_kept_as_a_set(one, other, count):
    found = with_slots(with_slots(b"", one), other)
    assert found == with_slots(b"", one | other)
    assert flags(found, count) == bytes(slot in one | other for slot in range(count))


def test_the_ranges_of_an_earlier_release_are_the_same_set():
    assert of_ranges([[0, 2], [9, 9]]) == with_slots(b"", [0, 1, 2, 9])


# --- interruptions -------------------------------------------------------------------------------

CUT = (Observed.LOST, StopCause.NODE_LOST, "lost"), (Observed.FAILED, "", UNKNOWN_OUTCOME)


@given(st.lists(st.sampled_from(CUT), max_size=12), st.integers(0, 12))
def test_no_interruption_up_to_the_limit_fails_a_job_or_costs_an_attempt(ends, most):
    progress = Progress()
    for number, (observed, cause, code) in enumerate(ends, 1):
        it = execution(observed, attempt=number, cause=cause, code=code)
        limits = {"attempts": 1, "max_interruptions": most}
        plan = schedule(world(it, progress=progress, retry=limits))
        progress = plan.progress
        assert progress.failed_attempts == {}
        if number > most:
            assert (plan.state, progress.retry_at) == (JobState.FAILED, {})
            return
        assert progress.interruptions == {0: number}
        waits = observed is Observed.FAILED and number > 1
        assert progress.retry_at.keys() == ({0} if waits else set())
        if waits:
            plan = schedule(world(progress=progress, retry=limits, now=progress.retry_at[0]))
            progress = plan.progress
        assert [place.attempt for place in plan.place] == [number + 1]


@given(
    st.sampled_from(sorted(Observed)),
    st.sampled_from(["", *StopCause]),
    st.sampled_from(["", "exit-code", "signal", "stopped", "timeout", UNKNOWN_OUTCOME]),
)
def test_only_what_ends_in_the_dark_is_interrupted_and_only_when_it_was_to_run(
    observed, cause, code
):
    if is_interruption(observed, cause, code):
        assert observed in OBSERVED.terminal
        assert observed is Observed.LOST or code == UNKNOWN_OUTCOME
        assert cause in {
            "",
            StopCause.NODE_LOST,
            StopCause.NODE_REJECTED,
            StopCause.FORGOTTEN_BY_NODE,
        }
