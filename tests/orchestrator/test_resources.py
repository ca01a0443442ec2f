"""Every place that counts resources counts every dimension of them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from uuid import UUID

import numpy as np
import pytest
from django.db import IntegrityError, transaction
from django.db.models import Q
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict

from nodes import membership
from nodes.agent.bidding import Offer, refusal
from nodes.callbacks import Inbound
from nodes.locks import Lock, lock_rows
from nodes.membership.capacity import MOST
from nodes.models import Node
from nodes.protocol import codec
from nodes.protocol.messages import Happened, Hello, Order, Orders, Report, Task, Want
from nodes.protocol.resources import DIMENSIONS, Resources
from orchestrator import endpoint
from orchestrator.api import schemas
from orchestrator.broker import blocked
from orchestrator.broker.unblock import Candidate, choose
from orchestrator.lifecycle import Observed
from orchestrator.models import Execution
from orchestrator.planners import compute_forwarder
from orchestrator.planners.transitions import lock_executions, lock_nodes, reserve
from orchestrator.planners.transitions.reservations import release
from orchestrator.scheduling import feasibility
from orchestrator.scheduling.world import Nodes, Room
from orchestrator.worker.snapshot import ClusterView
from tests import rows
from tests.agent import test_core as agent
from tests.orchestrator.test_walk import evaluate

pytestmark = pytest.mark.django_db

FIELDS = Resources.__struct_fields__
TASK = Task("process", ("true",))


def amounts(least: int, most: int) -> st.SearchStrategy[Resources]:
    return st.builds(Resources, **{field: st.integers(least, most) for field in FIELDS})


def each(what: Callable[..., int], *given: Resources) -> Resources:
    """*what* of each dimension by itself."""
    return Resources(**{field: what(*(getattr(it, field) for it in given)) for field in FIELDS})


def only(first: int, _second: int) -> int:
    return first


def columns(**amounts: Resources) -> dict[str, int]:
    return {f"{of}_{d}": getattr(it, d) for of, it in amounts.items() for d in FIELDS}


def stored(capacity: Resources, allocated: Resources, advertised: Resources | None = None) -> Node:
    advertised = capacity if advertised is None else advertised
    node = rows.node(**columns(capacity=capacity, advertised=advertised))
    lock_rows(Lock.SESSIONS, [node.pk], "epoch")  # A hello takes it, and before the node.
    if allocated != Resources():
        Node.objects.filter(pk=node.pk).update(**columns(allocated=allocated))
    return node


def again(node: Node) -> Node:
    return Node.objects.get(pk=node.pk)


def cluster(capacity: Resources, allocated: Resources) -> Room:
    amounts = np.array([capacity.astuple()], dtype=np.int64)
    nodes = Nodes(
        ids=["n"],
        names=["N"],
        labels=[{"node.driver.process": "true"}],
        capacity=amounts,
        offered=amounts,
        ready=np.array([True]),
        unready=[""],
    )
    return Room(nodes, np.array([allocated.astuple()], dtype=np.int64))


def of_row(array: np.ndarray) -> Resources:
    return Resources(*(int(amount) for amount in array[0]))


# --- sums ------------------------------------------------------------------------------------


def taken_from_a_cluster(has: Resources, needs: Resources) -> Resources:
    it = cluster(has + needs, has)
    it.take("n", needs)
    return of_row(it.allocated)


def held_by_an_agent(has: Resources, needs: Resources) -> Resources:
    node = agent.Node(capacity=has + needs)
    node.order(Want.BID, "a", resources=has)
    node.order(Want.BID, "b", resources=needs)
    return node.core.used


def freed_by_an_agent(has: Resources, needs: Resources) -> Resources:
    node = agent.Node(capacity=has + needs)
    node.order(Want.BID, "a", resources=has)
    node.order(Want.BID, "b", resources=needs)
    node.order(Want.REJECT, "b")
    return node.core.used


def left_by_who_is_woken(has: Resources, needs: Resources) -> Resources:
    room = blocked.Room({}, has + needs)
    choose([room], [Candidate(UUID(int=1), "c", 1)], {"c": blocked.Waits(needs)})
    return room.free


def on_the_wire(has: Resources, _: Resources) -> Resources:
    orders = Orders(1, 0, 1, (Order("e", Want.RUN, 1, TASK, has),))
    return codec.decode_from_server(codec.encode(orders)).items[0].resources


def reserved(has: Resources, needs: Resources) -> Resources:
    node = stored(has + needs, has)
    reserve({node.pk: needs}, {node.pk: 1})
    return again(node).allocated


def released(has: Resources, needs: Resources) -> Resources:
    node = stored(has + needs, has + needs)
    release({node.pk: needs})
    return again(node).allocated


def capacity_after_release(has: Resources, needs: Resources) -> Resources:
    """Of a node that advertises less than it was told to run."""
    node = stored(has + needs, has + needs, advertised=needs)
    release({node.pk: needs})
    return again(node).capacity


def capacity_after_a_hello(has: Resources, needs: Resources) -> Resources:
    node = stored(needs, needs)
    hello = Hello(1, "i", 1, "l", "b", has, {})
    membership.greet(node.pk, hello, "web", record=endpoint.record_node)
    return again(node).capacity


def free_when_locked(has: Resources, needs: Resources) -> Resources:
    node = stored(has + needs, needs)
    return lock_nodes([node.pk])[node.pk].free


def free_for_the_blocked(has: Resources, needs: Resources) -> Resources:
    node = stored(has + needs, needs)
    [room] = blocked.rooms(Q(pk=node.pk))
    return room.free


def free_in_a_snapshot(has: Resources, needs: Resources) -> Resources:
    node = stored(has + needs, needs)
    view = ClusterView().refresh()
    row = view.nodes.index[str(node.pk)]
    return of_row(view.free[row : row + 1])


def of_an_execution(has: Resources, needs: Resources) -> Resources:
    node = stored(has + needs, Resources())
    row = rows.execution(rows.job(), node, **{d: getattr(has, d) for d in FIELDS})
    [told] = compute_forwarder.orders({node.pk: 0})
    locked = lock_executions([row.pk])[row.pk].resources
    assert row.resources == locked == told.orders[0].resources
    return locked


SUMS: dict[Callable[[Resources, Resources], Resources], Callable[[int, int], int]] = {
    operator.add: operator.add,
    operator.sub: operator.sub,
    lambda has, needs: blocked.least([has, needs]): min,
    lambda has, needs: of_row(cluster(has, needs).free): operator.sub,
    lambda has, _: Resources(**asdict(schemas.Resources.of(has))): only,
    lambda has, _: blocked.Waits.load(blocked.Waits(has).dump()).need: only,
    on_the_wire: only,
    taken_from_a_cluster: operator.add,
    held_by_an_agent: operator.add,
    freed_by_an_agent: only,
    left_by_who_is_woken: only,
    reserved: operator.add,
    released: only,
    capacity_after_release: max,
    free_when_locked: only,
    free_for_the_blocked: only,
    free_in_a_snapshot: only,
    of_an_execution: only,
}
"""What is counted somewhere, and what is right of one dimension."""

hurried = settings(
    max_examples=4,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def test_the_dimensions_are_the_fields_of_the_type_in_their_order():
    assert DIMENSIONS == FIELDS
    assert Resources(*range(len(FIELDS))).astuple() == tuple(range(len(FIELDS)))


@pytest.mark.parametrize("count", SUMS, ids=lambda it: it.__name__)
@hurried
@given(has=amounts(1, 2**30), needs=amounts(1, 2**30))
def test_what_is_counted_is_counted_of_every_dimension(count, has, needs):
    with transaction.atomic():
        assert count(has, needs) == each(SUMS[count], has, needs)
        transaction.set_rollback(True)


@hurried
@given(has=amounts(0, 2**58), needs=amounts(0, 2**50))
def test_a_node_has_what_it_offers_within_reason_and_what_is_taken_of_it(has, needs):
    with transaction.atomic():
        assert capacity_after_a_hello(has, needs) == each(max, each(min, has, MOST), needs)
        transaction.set_rollback(True)


# --- comparisons -----------------------------------------------------------------------------


def is_taken_by_an_agent(needs: Resources, has: Resources) -> bool:
    order = Order("e", Want.BID, 1, TASK, needs)
    empty = refusal(order, Offer(has, Resources(), {"process"}))
    beside = refusal(order, Offer(has + has, has, {"process"}))
    assert (empty is None) == (beside is None)
    return empty is None


def is_not_overcommitted(needs: Resources, has: Resources) -> bool:
    node = stored(has, Resources())
    try:
        with transaction.atomic():
            reserve({node.pk: needs}, {node.pk: 1})
    except IntegrityError:
        return False
    return True


def has_room_in_the_database(needs: Resources, has: Resources) -> bool:
    node = stored(has + has, has)
    return Node.objects.filter(blocked.with_room_for(needs), pk=node.pk).exists()


def is_feasible(needs: Resources, has: Resources) -> bool:
    wanted = feasibility.Demand(needs, "process")
    empty = feasibility.refusals(cluster(has, Resources()), 0, wanted)
    beside = feasibility.refusals(cluster(has + has, has), 0, wanted)
    assert len(empty) == len(beside)
    return not empty


COMPARISONS: tuple[Callable[[Resources, Resources], bool], ...] = (
    Resources.fits,
    lambda needs, has: not needs.shortfalls(has),
    lambda needs, has: bool(feasibility.large_enough(cluster(has, has).nodes, needs)[0]),
    lambda needs, has: blocked.Waits(needs).held_by(blocked.Room({}, has)) > 0,
    is_taken_by_an_agent,
    is_feasible,
    is_not_overcommitted,
    has_room_in_the_database,
)


@pytest.mark.parametrize("fits", COMPARISONS, ids=lambda it: it.__name__)
@hurried
@given(has=amounts(2, 2**30))
def test_what_fits_fits_in_every_dimension(fits, has):
    for field in FIELDS:
        amount = getattr(has, field)
        for needs, right in ((amount - 1, True), (amount, True), (amount + 1, False)):
            with transaction.atomic():
                needed = Resources(**{**{d: getattr(has, d) for d in FIELDS}, field: needs})
                assert fits(needed, has) is right, f"{field}: {needs} of {amount}"
                transaction.set_rollback(True)


@hurried
@given(has=amounts(0, 4), needs=amounts(0, 4))
def test_what_is_missing_is_named_with_how_much(has, needs):
    missing = {d: getattr(needs, d) - getattr(has, d) for d in FIELDS}
    assert needs.shortfalls(has) == {d: amount for d, amount in missing.items() if amount > 0}


# --- from a job to its node and back ---------------------------------------------------------

NEEDS = Resources(cpu=3, memory=2**20 + 5, disk=7, gpu=9)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_removed", [False, True])
def test_a_node_gives_all_that_a_job_needs_and_gets_all_of_it_back(is_removed):
    assert 0 not in NEEDS.astuple(), "a new dimension needs an amount here"
    node = rows.node(**columns(capacity=NEEDS, advertised=NEEDS))
    needs = {**{d: getattr(NEEDS, d) for d in FIELDS}, "cpu": f"{NEEDS.cpu}m"}
    wanted = rows.job_spec(approval="none", task={"resources": needs})
    endpoint.submit(wanted, actor="user:ana")
    evaluate()
    execution = Execution.objects.get()
    assert (execution.resources, again(node).allocated) == (NEEDS, NEEDS)
    rows.move(execution, Observed.RUNNING)
    if is_removed:
        rows.lose(node)
        endpoint.remove_node(node.pk, actor="user:ana")
    else:
        said = (Report(str(execution.pk), Happened.COMPLETE),)
        endpoint.receive([Inbound(node.pk, 1, 1, 0, (), said)])
    assert Node.every.get().allocated == Resources()
