"""What a submission makes of a job."""

from dataclasses import replace

import pytest

from orchestrator.lifecycle import JobState
from orchestrator.scheduling.intent import submit
from tests.scheduling import worlds
from tests.scheduling.worlds import job_spec

ENDED = [JobState.COMPLETED, JobState.FAILED, JobState.STOPPED]
ANOTHER = {"task": {"command": ["false"]}}


def intent(state=JobState.RUNNING, *, stop_requested=False, **differing):
    known = {"state": state, "version": 4, "round": 2, "stop_requested": stop_requested}
    return worlds.intent(job_spec(**differing), **known)


@pytest.mark.parametrize("state", [it for it in JobState if it is not JobState.STOPPED])
def test_the_same_changes_nothing(state):
    before = intent(state, count=3)
    done = submit(before, job_spec(count=3))
    assert (done.intent, done.is_change) == (before, False)


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.FAILED])
def test_the_same_changes_nothing_of_what_ended_before_it_could_be_stopped(state):
    assert not submit(intent(state, stop_requested=True), job_spec()).is_change


@pytest.mark.parametrize("state", list(JobState))
def test_another_task_is_a_new_version_and_runs_everything_again(state):
    done = submit(intent(state), job_spec(**ANOTHER))
    assert (done.is_new_version, done.renewed) == (True, True)
    assert (done.intent.version, done.intent.round) == (5, 3)


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.QUEUED, JobState.RUNNING])
@pytest.mark.parametrize(
    "change", [{"retry": {"attempts": 9}}, {"timeouts": {"execution": 60}}, {"constraints": ["a"]}]
)
def test_what_changes_no_task_leaves_a_job_that_has_not_ended_as_it_is(state, change):
    done = submit(intent(state), job_spec(**change))
    assert (done.is_new_version, done.renewed, done.intent.round) == (True, False, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": 5}, "count from 1 to 5"),
        ({"count": 5, "priority": 70}, "count from 1 to 5, priority from 50 to 70"),
        ({"labels": {"a": "b"}}, "other labels"),
    ],
)
def test_how_much_is_wanted_makes_no_version(change, said):
    done = submit(intent(), job_spec(**change))
    assert (done.is_new_version, done.renewed, done.change) == (False, False, said)
    assert (done.intent.version, done.intent.round) == (4, 2)
    for name, value in change.items():
        assert getattr(done.intent, name) == value


def test_a_failed_job_is_tried_again_when_its_body_or_count_differs():
    for change in ({"retry": {"attempts": 5}}, {"count": 2}, {"timeouts": {"queue": 60}}):
        done = submit(intent(JobState.FAILED), job_spec(**change))
        assert (done.renewed, done.intent.round) == (True, 2), change
    for change in ({"priority": 70}, {"labels": {"a": "b"}}):
        assert not submit(intent(JobState.FAILED), job_spec(**change)).renewed, change


def test_a_completed_job_goes_on_only_when_more_slots_are_wanted():
    for change in ({"priority": 70}, {"retry": {"attempts": 5}}, {"count": 1}):
        assert not submit(intent(JobState.COMPLETED, count=2), job_spec(**change)).renewed, change
    done = submit(intent(JobState.COMPLETED, count=2), job_spec(count=3))
    assert (done.renewed, done.intent.round) == (True, 2)


@pytest.mark.parametrize("before", [intent(JobState.STOPPED), intent(stop_requested=True)])
def test_what_was_stopped_runs_again_in_a_new_round_of_the_same_version(before):
    done = submit(before, job_spec())
    assert done.intent == replace(before, round=3, stop_requested=False)
    assert (done.is_new_version, done.renewed) == (False, True)


@pytest.mark.parametrize("state", list(JobState))
def test_a_rerun_is_of_what_has_ended(state):
    done = submit(intent(state), job_spec(), rerun=True)
    assert done.renewed == (state in ENDED)
    assert done.intent.round == 2 + (state in ENDED)
