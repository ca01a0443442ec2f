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


def test_a_node_without_drivers_says_so_and_one_with_many_names_them_all():
    docker = order(task=Task("docker", ("true",)))
    for drivers, have in (({}, "none"), ({"process", "noop"}, "noop, process")):
        why = refusal(docker, Offer(Resources(), Resources(), frozenset(drivers)))
        assert why is not None
        assert why.message == f"there is no driver 'docker' here, only {have}"


def with_variable(name: str, value: str = "b") -> Order:
    return order(task=Task("process", ("true",), env={"A": "b", name: value}))


@pytest.mark.parametrize(
    ("nonsense", "what"),
    [
        (order(execution="../../etc/passwd"), "its execution id is not a plain name"),
        (order(execution=".hidden"), "its execution id is not a plain name"),
        (order(task=None), "it has no task"),
        (order(task=Task("process", ())), "its command is empty"),
        (order(task=Task("process", ("",))), "its command is empty"),
        (
            order(task=Task("process", ("true", "a\0b"))),
            "its command has a NUL character in it",
        ),
        *(
            (
                with_variable(*variable),
                "a variable of its environment has no usable name or a NUL character in it",
            )
            for variable in (("A=B",), ("",), ("A\0",), ("B", "\0"))
        ),
        (order(timeout=0.0), "its timeout or grace is not a time"),
        (order(timeout=-1.0), "its timeout or grace is not a time"),
        (order(grace=-0.001), "its timeout or grace is not a time"),
        *(
            (order(resources=Resources(**{field: -1})), "it needs less than nothing")
            for field in Resources.__struct_fields__
        ),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_for_good(nonsense, what):
    why = refusal(nonsense, offer())
    assert why is not None
    assert (why.code, why.retryable) == ("not-started", False)
    assert why.message == f"the order makes no sense: {what}"


@pytest.mark.parametrize(
    "sound",
    [
        order(timeout=0.001),
        order(grace=0.0),
        order(task=Task("process", ("true", ""), env={"A": "", "B": "a=b"})),
        order(execution="x" * 128),
    ],
)
def test_what_is_odd_but_makes_sense_is_taken(sound):
    assert refusal(sound, offer()) is None


def test_what_never_fits_and_what_does_not_fit_now_may_fit_elsewhere():
    for it in (offer(capacity=Resources(cpu=599)), offer(used=Resources(cpu=401))):
        why = refusal(order(resources=Resources(cpu=600, memory=0)), it)
        assert why is not None
        assert (why.code, why.retryable) == ("no-capacity", True)


def test_all_that_a_node_lacks_is_named():
    why = refusal(order(resources=Resources(cpu=2, memory=3, gpu=4)), offer(Resources(cpu=2)))
    assert why is not None
    assert why.message == (
        "needs memory 3 bytes and gpu 4 devices, the whole node has memory 0 bytes and "
        "gpu 0 devices"
    )
