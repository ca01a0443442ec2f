"""Why a node would not take an execution."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.agent.bidding import Offer, refusal
from nodes.protocol.messages import Order, Task, Want
from nodes.protocol.resources import Resources

TRUE = Task("process", ("true",))
amounts = st.builds(Resources, *(st.integers(0, 100) for _ in range(4)))


def offer(capacity: Resources = Resources(cpu=1000), used: Resources = Resources()) -> Offer:  # noqa: B008
    return Offer(capacity, used, frozenset({"process"}))


def order(execution: str = "e", task: Task | None = TRUE, **rest: object) -> Order:
    return Order(execution, Want.BID, 1, task=task, **rest)  # type: ignore[arg-type]


@given(need=amounts, capacity=amounts, used=amounts)
def test_what_is_taken_always_fits_and_what_fits_is_taken(need, capacity, used):
    why = refusal(order(resources=need), offer(capacity, used))
    assert (why is None) == (used + need).fits(capacity) or not used.fits(capacity)


def test_full_and_too_small_are_different_sentences():
    need = order(resources=Resources(cpu=600))
    full = refusal(need, offer(used=Resources(cpu=500)))
    small = refusal(need, offer(capacity=Resources(cpu=500)))
    assert full is not None
    assert small is not None
    assert full.message == (
        "needs cpu 600 millicores, cpu 500 millicores of cpu 1000 millicores free"
    )
    assert small.message == "needs cpu 600 millicores, the whole node has cpu 500 millicores"


def test_an_unknown_driver_is_named_beside_the_known_ones():
    why = refusal(order(task=Task("docker", ("true",))), offer())
    assert why is not None
    assert (why.code, why.message) == (
        "no-driver",
        "there is no driver 'docker' here, only process",
    )


@pytest.mark.parametrize(
    "nonsense",
    [
        order(execution="../../etc/passwd"),
        order(execution=".hidden"),
        order(task=None),
        order(task=Task("process", ())),
        order(task=Task("process", ("",))),
        order(task=Task("process", ("a\0b",))),
        order(task=Task("process", ("true",), env={"A=B": "c"})),
        order(task=Task("process", ("true",), env={"A": "\0"})),
        order(resources=Resources(cpu=-1)),
        order(timeout=0.0),
        order(grace=-1.0),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_for_good(nonsense):
    why = refusal(nonsense, offer())
    assert why is not None
    assert (why.code, why.retryable) == ("not-started", False)
