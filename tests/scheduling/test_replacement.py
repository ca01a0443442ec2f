"""What is replaced at once and what later, for any budget."""

from dataclasses import replace as changed

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.lifecycle import Desired, Observed, StopCause
from orchestrator.scheduling.replacement import Budget, replace
from tests.scheduling.worlds import execution

WHY = StopCause.NEWER_VERSION


def old(slot, observed="running"):
    return execution(observed, slot, generation="old")


def replaced(live, count, **budget):
    candidates = {it.id: WHY for it in live if it.generation == "old"}
    return replace(candidates, live, count, Budget(**budget))


def stopped(answer, live):
    told = {stop.execution: stop.cause for stop in answer.stop}
    assert set(told.values()) <= {WHY}
    return [it.slot for it in live if it.id in told]


def test_a_budget_of_everything_stops_all_at_once():
    live = [old(slot) for slot in range(4)]
    answer = replaced(live, 4, max_unavailable=4)
    assert (stopped(answer, live), answer.hold, answer.first) == ([0, 1, 2, 3], (), ())


def test_as_many_stop_as_may_be_missing_and_what_is_missing_already_counts():
    live = [old(slot) for slot in range(1, 5)]
    assert stopped(replaced(live, 5, max_unavailable=2), live) == [1]
    assert stopped(replaced(live, 5, max_unavailable=1), live) == []


def test_what_does_not_run_is_stopped_whatever_the_budget():
    live = [old(0), old(1, "bid_accepted"), old(2, "new")]
    assert stopped(replaced(live, 3, max_unavailable=1), live) == [1, 2]


def test_with_a_surge_the_new_one_comes_first_and_then_the_old_one_goes():
    live = [old(0), old(1), old(2)]
    answer = replaced(live, 3, max_unavailable=0, max_surge=2)
    assert (answer.stop, answer.first) == ((), (0, 1))
    live += [execution("bid_accepted", 0), execution("running", 1)]
    answer = replaced(live, 3, max_unavailable=0, max_surge=2)
    assert (stopped(answer, live), answer.first) == ([1], ())
    assert {it.slot for it in answer.hold} == {0, 2}


@pytest.mark.parametrize("budget", [(0, 0), (-1, 1), (1, -1)])
def test_a_budget_that_would_replace_nothing_is_none(budget):
    with pytest.raises(ValueError, match=r"more than 0|negative"):
        Budget(*budget)


# --- any roll-out --------------------------------------------------------------------------------


class Rollout:
    """A job whose executions start and end whenever *chance* says."""

    def __init__(self, chance, count, budget):
        self.chance, self.count, self.budget = chance, count, budget
        self.wanted = "one"
        self.live = [execution("running", slot, generation="one") for slot in range(count)]

    def step(self):
        """Decide once and look at what the budget promises, then let something happen."""
        going = [it for it in self.live if it.desired is not Desired.STOPPED]
        candidates = {it.id: WHY for it in going if it.generation != self.wanted}
        answer = replace(candidates, going, self.count, self.budget)
        told = {stop.execution for stop in answer.stop}
        assert told <= candidates.keys(), "what is current stays"
        held = {it.id for it in answer.hold}
        assert told | held == candidates.keys()
        assert told.isdisjoint(held)
        self.live = [
            changed(it, desired=Desired.STOPPED) if it.id in told else it for it in self.live
        ]
        going = [it for it in going if it.id not in told]
        there = {it.slot for it in going}
        for slot in (*(set(range(self.count)) - there), *answer.first):
            new = execution("new", slot, generation=self.wanted, desired=Desired.RUNNING)
            self.live.append(new)
            going.append(new)
        available = {it.slot for it in going if it.observed is Observed.RUNNING}
        assert len(available) >= self.count - self.budget.max_unavailable
        assert len(going) <= self.count + self.budget.max_surge
        assert len({(it.slot, it.generation) for it in going}) == len(going)
        for it in self.chance.sample(self.live, k=min(2, len(self.live))):
            self.live.remove(it)
            if it.desired is not Desired.STOPPED:
                self.live.append(changed(it, observed=Observed.RUNNING))

    @property
    def is_over(self):
        over = (self.wanted, Observed.RUNNING, Desired.RUNNING)
        return all((it.generation, it.observed, it.desired) == over for it in self.live)


@given(
    st.randoms(use_true_random=False),
    st.integers(1, 6),
    st.tuples(st.integers(0, 6), st.integers(0, 3)).filter(any),
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["one", "two", "three"])), max_size=4),
)
def test_a_rollout_stays_within_its_budget_and_ends_at_what_is_wanted(
    chance, count, budget, changes
):
    """Also when what is wanted changes half-way, back to what it was, too."""
    it = Rollout(chance, count, Budget(*budget))
    for steps, wanted in [*changes, (0, "two")]:
        it.wanted = wanted
        for _ in range(steps):
            it.step()
    for _ in range(400):
        it.step()
        if it.is_over:
            break
    assert it.is_over
    assert sorted(one.slot for one in it.live) == list(range(count))


@given(st.randoms(use_true_random=False), st.integers(1, 6))
def test_going_back_half_way_replaces_nothing_that_runs_it_still(chance, count):
    it = Rollout(chance, count, Budget(1))
    it.wanted = "two"
    for _ in range(count):
        it.step()
    stays = {one.id for one in it.live if one.generation == "one" and one.desired != "stopped"}
    it.wanted = "one"
    for _ in range(200):
        it.step()
        if it.is_over:
            break
    assert stays <= {one.id for one in it.live}
