"""The tables say everything; nothing is said twice."""

import pytest

from nodes.protocol.messages import Happened, Want
from orchestrator.lifecycle import (
    APPROVED,
    DESIRED,
    JOB,
    MEANING,
    OBSERVED,
    TOLD,
    WRITERS,
    Desired,
    IllegalTransition,
    JobState,
    Observed,
    need_approval,
    path,
    want,
)

LIVE = sorted(OBSERVED.live)


def test_every_observed_state_is_in_the_table_and_means_something():
    assert set(OBSERVED.states) == set(MEANING) == set(Observed)


def test_every_event_has_a_writer_and_every_writer_an_event():
    events = {event for _, event, _ in (*OBSERVED.edges(), *DESIRED.edges())}
    assert events == set(WRITERS)


@pytest.mark.parametrize("state", LIVE)
def test_every_live_execution_can_be_cancelled_and_lost(state):
    assert {"cancel", "lose"} <= set(OBSERVED.table[state])


def test_every_state_can_be_reached():
    for table in (OBSERVED, DESIRED, JOB):
        reached = {table.initial}
        while grown := {after for state, _, after in table.edges() if state in reached} - reached:
            reached |= grown
        assert reached == set(table.states)


@pytest.mark.parametrize("state", sorted(OBSERVED.terminal))
def test_nothing_happens_after_the_end(state):
    with pytest.raises(IllegalTransition, match="'start' cannot happen"):
        OBSERVED.after(state, "start")
    assert path(state, Happened.START) is None


def test_desired_never_goes_back():
    order = [Desired.PENDING, Desired.RUNNING, Desired.STOPPED]
    assert all(order.index(after) > order.index(before) for before, _, after in DESIRED.edges())


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.FAILED, JobState.STOPPED])
def test_an_ended_job_can_only_be_renewed(state):
    assert set(JOB.table[state]) == {"renew"}


@pytest.mark.parametrize("observed", sorted(OBSERVED.terminal))
@pytest.mark.parametrize("desired", sorted(Desired))
def test_a_node_is_told_nothing_about_what_is_over(desired, observed):
    assert want(desired, observed, reserved=False) is None


@pytest.mark.parametrize("observed", sorted(OBSERVED.terminal - {Observed.LOST}))
def test_what_is_over_and_may_go_on_at_its_node_is_stopped(observed):
    assert want(Desired.STOPPED, observed, reserved=True) is Want.STOP


def test_a_lost_node_is_told_what_to_stop_when_it_says_hello():
    assert want(Desired.STOPPED, Observed.LOST, reserved=True) is None


def test_a_bid_that_is_not_needed_is_rejected_and_anything_else_is_stopped():
    told = {state: want(Desired.STOPPED, state, reserved=True) for state in LIVE}
    assert told.pop(Observed.ASK_FOR_BID_ACCEPTED) is Want.REJECT
    assert set(told.values()) == {Want.STOP}


@pytest.mark.parametrize("observed", LIVE)
def test_a_node_is_asked_first_and_told_to_run_when_that_is_wanted(observed):
    assert want(Desired.PENDING, observed, reserved=True) is Want.BID
    assert want(Desired.RUNNING, observed, reserved=True) is Want.RUN


def test_what_happened_implies_what_must_have_been_said_before():
    assert path(Observed.NEW, Happened.COMPLETE) == ("accept", "start", "complete")
    assert path(Observed.ASK_FOR_BID, Happened.START) == ("bid", "accept", "start")
    assert path(Observed.RUNNING, Happened.START) is None


def test_what_runs_has_been_approved():
    assert {
        Observed.BID_ACCEPTED,
        Observed.PREPARING,
        Observed.RUNNING,
        Observed.PUBLISHING,
    } == APPROVED
    assert need_approval(path(Observed.ASK_FOR_BID, Happened.START))
    assert not need_approval(path(Observed.NEW, Happened.BID))
    assert not need_approval(path(Observed.RUNNING, Happened.COMPLETE))


@pytest.mark.parametrize("observed", [Observed.ASK_FOR_BID, Observed.ASK_FOR_BID_ACCEPTED])
def test_a_node_may_withdraw_before_anybody_approved(observed):
    assert path(observed, Happened.DECLINE) == ("decline",)


@pytest.mark.parametrize("wanted", sorted(TOLD))
def test_what_a_node_has_been_told_is_an_event_of_the_table(wanted):
    assert OBSERVED.sources(TOLD[wanted])
