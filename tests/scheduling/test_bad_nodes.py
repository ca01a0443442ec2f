"""What a job remembers of nodes that were bad to it."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.models.spec_cache import dump_progress, load_progress
from orchestrator.scheduling.bad_nodes import (
    MOST,
    REMEMBERED,
    avoided,
    remembered,
    with_failure,
    with_refusal,
)
from orchestrator.scheduling.world import Progress
from tests.scheduling.worlds import NOW, seconds


def test_a_node_that_refuses_is_asked_later_each_time_and_never_sooner_than_it_was_to_be():
    bad, pauses = {}, []
    for _ in range(6):
        bad = with_refusal(bad, "n", NOW)
        pauses.append((bad["n"].until - NOW).total_seconds())
    assert pauses == [30, 60, 120, 240, 300, 300]
    earlier = with_refusal(bad, "n", NOW - seconds(100))
    assert (earlier["n"].until, earlier["n"].at) == (bad["n"].until, NOW)
    assert avoided(bad, NOW + seconds(299)) == {"n": NOW + seconds(300)}
    assert avoided(bad, NOW + seconds(300)) == {}


def test_only_the_newest_are_remembered_and_for_an_hour():
    bad = {}
    for number in range(5000):
        bad = with_failure(bad, f"n{number}", NOW + seconds(number / 10))
    kept = remembered(bad, NOW + seconds(500))
    assert kept.keys() == {f"n{number}" for number in range(5000 - MOST, 5000)}
    assert remembered(kept, NOW + seconds(500) + REMEMBERED) == {}


def test_what_is_stored_of_them_is_small():
    bad = {}
    for number in range(5000):
        bad = with_refusal(bad, f"00000000-0000-0000-0000-00000000{number:04}", NOW)
    assert len(str(dump_progress(Progress(bad_nodes=remembered(bad, NOW))))) < 6000


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 9000))))
def test_what_was_stored_is_the_same_again(happened):
    bad = {}
    for node, failed, at in happened:
        bad = (with_failure if failed else with_refusal)(bad, node, NOW + seconds(at))
    progress = Progress(bad_nodes=bad)
    assert load_progress(dump_progress(progress)) == progress
