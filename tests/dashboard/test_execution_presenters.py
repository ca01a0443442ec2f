from itertools import pairwise

from dashboard.presenters import executions, lifeline
from orchestrator.explain.wording import text
from orchestrator.models import ExecutionOutput
from tests.dashboard.made import BIDDING, at, execution, history


def ended(**differing):
    ordinary = {"observed": "completed", "desired": "stopped", "started_at": at(0.05)}
    return execution(**{**ordinary, "ended_at": at(12), **differing})


def test_both_lanes_are_drawn_on_one_axis():
    picture = lifeline.lifeline(ended(), history(BIDDING), at(60))
    assert [span.word for span in picture.desired] == ["pending", "running", "stopped"]
    assert [span.word for span in picture.observed] == [
        *("new", "asked for bid", "bid received", "bid accepted", "running", "completed")
    ]
    assert picture.desired[0].x == picture.observed[0].x == lifeline.LEFT
    assert picture.desired[-1].x == picture.observed[-1].x
    assert picture.now is None


def test_everything_stays_inside_and_in_order_however_much_happened():
    states = [("ask_for_bid", "compute-forwarder"), ("new", "state-updater")] * 10
    rows = history([(n / 1000, "observed", after, who) for n, (after, who) in enumerate(states)])
    picture = lifeline.lifeline(execution(), rows, at(9000))
    xs = [span.x for span in picture.observed]
    assert all(b - a >= lifeline.LEAST for a, b in pairwise(xs))
    assert picture.observed[-1].x < picture.end < picture.width


def test_every_change_says_who_wrote_it():
    picture = lifeline.lifeline(ended(), history(BIDDING), at(60))
    observed = [mark.letter for mark in picture.marks if mark.lane == "observed"]
    assert observed == ["S", "F", "N", "F", "N", "N"]
    assert [letter for letter, _ in picture.legend] == ["N", "S", "F"]


def test_the_lanes_differ_from_the_approval_until_the_task_runs():
    picture = lifeline.lifeline(ended(), history(BIDDING), at(60))
    assert [(gap.text, gap.late) for gap in picture.gaps] == [("differed 20 ms", False)]


def test_a_stop_that_is_not_confirmed_is_a_late_difference():
    rows = history([*BIDDING[:7], (20, "desired", "stopped", "state-updater")])
    picture = lifeline.lifeline(execution(desired="stopped"), rows, at(30))
    assert (picture.gaps[-1].text, picture.gaps[-1].late) == ("differed 10 s", True)
    assert picture.now == picture.end


def test_an_execution_without_history_has_an_empty_picture():
    picture = lifeline.lifeline(execution(), [], at(1))
    assert (picture.desired, picture.observed, picture.marks) == ((), (), ())


def test_a_lone_change_fills_what_there_is():
    rows = history([(0, "desired", "pending", "state-updater")])
    picture = lifeline.lifeline(execution(), rows, at(1))
    assert picture.desired[0].width > lifeline.LEAST


def test_the_picture_can_be_read_aloud():
    picture = lifeline.lifeline(ended(), history(BIDDING), at(60))
    assert picture.label.startswith("Observed: new for 10 ms, then asked for bid for 10 ms")
    assert picture.label.endswith("then running for 11 s, then completed")


def test_intervals_say_where_the_time_went():
    found = executions.intervals(ended(), history(BIDDING), at(-1), at(60))
    assert [(part.text, part.took) for part in found] == [
        ("Waiting for a decision", "1.0 s"),
        ("Telling the node", "10 ms"),
        ("Bidding", "10 ms"),
        ("Approval", "20 ms"),
        ("Preparing", "10 ms"),
        ("Running", "11 s"),
    ]
    assert found[-1].width == 100


def test_a_stop_has_an_interval_of_its_own():
    rows = history(
        [
            *BIDDING[:7],
            (20, "desired", "stopped", "state-updater"),
            (23, "observed", "cancelled", "endpoint node:c-01"),
        ]
    )
    found = executions.intervals(ended(ended_at=at(23)), rows, None, at(60))
    assert (found[-1].text, found[-1].took) == ("Stopping", "3.0 s")


def test_transitions_tell_the_time_between_them():
    found = executions.transitions(history(BIDDING))
    assert (found[0].delta, found[2].delta) == ("", "+10 ms")
    assert found[2].writer == "ComputeForwarder"
    assert found[3].actor == "c-01"
    assert found[-1].after.word == "stopped"


def test_run_times_share_one_scale():
    quick = ended(started_at=at(0), ended_at=at(1))
    slow = ended(started_at=at(0), ended_at=at(4))
    waiting = execution(observed="new", desired="pending")
    assert [line.width for line in executions.lines([quick, slow, waiting], at(9))] == [25, 100, 0]


def test_the_head_says_how_it_ended():
    bad = ended(observed="failed", exit_code=137, message="killed: too much memory.")
    said = text(executions.head(bad, [bad], at(60)).sentence)
    assert said == "Failed on c-01 after 11 s with exit code 137: killed: too much memory."


def test_what_runs_on_a_silent_node_is_said_to_have_run():
    head = executions.head(execution(), [], at(60), silent_since=at(7))
    assert text(head.sentence) == (
        "Running on c-01: the task runs. So it was when c-01 was last heard of,"
        " at 2026-03-01 12:00:07 UTC."
    )


def test_a_failure_that_is_final_says_so():
    for message in ("no such file", "no such file."):
        bad = ended(observed="failed", retryable=False, message=message)
        said = text(executions.head(bad, [bad], at(60)).sentence)
        assert said == "Failed on c-01 after 11 s: no such file. It will not be retried."


def test_orders_to_a_terminal_are_left_out_of_the_output():
    text = "a \x1b[1;31mred\x1b[0m word\x1b]0;title\x07, \x1b(B100 %"
    found = executions.outputs(ExecutionOutput(stdout=text, stdout_size=len(text)))
    assert found[0].text == "a red word, 100 %"


def test_one_byte_is_one_whatever_became_of_it():
    found = executions.outputs(ExecutionOutput(stdout="\ufffd", stdout_size=1))
    assert found[0].note == "all of it, 1 byte"


def test_of_output_that_was_not_kept_it_is_said_how_much_there_was():
    [found] = executions.outputs(ExecutionOutput(stderr_size=100))
    assert (found.name, found.text, found.note) == ("stderr", "", "none of 100 bytes was kept")


def test_output_that_was_cut_says_how_much_there_was():
    found = executions.outputs(ExecutionOutput(stdout="tail", stdout_size=9000, stderr=""))
    assert [(one.name, one.note) for one in found] == [("stdout", "the last 4 of 9,000 bytes")]
