from types import SimpleNamespace

import pytest

from dashboard.presenters import bars, states
from nodes import readiness
from orchestrator.lifecycle import DESIRED, JOB, OBSERVED, EvaluationState


def test_every_state_of_the_lifecycles_can_be_shown():
    shown = [states.observed(state) for state in OBSERVED.states]
    shown += [states.desired(state) for state in DESIRED.states]
    shown += [states.job(state) for state in JOB.states]
    shown += [states.evaluation(state) for state in EvaluationState]
    assert {one.look for one in shown} <= set(states.ORDER)
    assert all(one.word for one in shown)


def test_an_execution_that_was_told_to_stop_is_stopping_until_it_confirms():
    assert states.execution("stopped", "running").word == "stopping"
    assert states.execution("stopped", "cancelled").word == "cancelled"
    assert states.execution("running", "running").word == "running"


@pytest.mark.parametrize(
    ("differing", "word"),
    [
        ({}, "ready"),
        ({"approval": "pending", "connection": "lost"}, "awaits approval"),
        ({"approval": "rejected", "connection": "lost"}, "rejected"),
        ({"connection": "disconnected", "draining": True}, "disconnected"),
        ({"draining": True, "eligible": False}, "draining"),
        ({"eligible": False}, "ineligible"),
        ({"quarantined": "two of it"}, "quarantined"),
        ({"degraded": "its spawner does not answer", "draining": True}, "degraded"),
    ],
)
def test_a_node_shows_what_an_operator_must_act_on_first(differing, word):
    assert states.node(SimpleNamespace(**{**readiness.READY, **differing})).word == word


def test_whatever_keeps_a_node_from_work_is_shown_as_such():
    for it in readiness.UNREADY:
        kept = "a text" if it.value == "" else not it.value if it.must else it.value
        shown = states.node(SimpleNamespace(**{**readiness.READY, it.column: kept}))
        assert shown.word != "ready"
        assert "{}" not in shown.mean


def test_a_bar_keeps_small_parts_visible_and_fills_exactly():
    bar = bars.bar({"ok": 9_990, "failed": 10, "running": 0})
    assert [part.look for part in bar.parts] == ["ok", "failed"]
    assert bar.parts[1].width == bars.LEAST
    assert bar.parts[1].x + bar.parts[1].width == pytest.approx(100)
    assert bar.label == "9,990 completed, 10 failed"


def test_an_empty_bar_says_so():
    assert bars.bar({}).label == "nothing yet"


def test_capacity_is_hot_above_nine_tenths_and_never_wider_than_its_bar():
    full = bars.capacity("cpu", 15_900, 16_000)
    over = bars.capacity("cpu", 20_000, 16_000)
    assert (full.percent, full.hot) == (99, True)
    assert over.width == 100


def test_capacity_of_nothing_is_no_division():
    assert bars.capacity("gpu", 0, 0).percent == 0


def test_a_sparkline_stands_on_its_zero():
    spark = bars.spark([0, 5, 10], "x")
    assert spark.points == "1.0,22.0 48.0,12.0 95.0,2.0"
