"""Properties of one session's books: whatever happens, nothing is skipped, repeated or piled up."""

from collections import deque

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.callbacks import Unsendable
from nodes.orders import LARGEST_ORDER, Comparison, NeverSent, Outgoing, encoded, parts
from nodes.protocol import codec
from nodes.protocol.messages import (
    BATCH,
    MAX_FRAME,
    WINDOW,
    Happened,
    Held,
    Holding,
    Order,
    Orders,
    Report,
    Task,
    Want,
)
from nodes.protocol.session import digest


def order(execution="e1", want=Want.RUN, rev=1, size=0):
    task = Task("process", ("true",), {"X": "x" * size}) if size else None
    return Order(execution, want, rev, task)


#: An execution is asked for, run, and ended, in that order, some of it left out.
STAGE = {Want.BID: 1, Want.RUN: 2, Want.REJECT: 3, Want.STOP: 3}


def sent(*orders):
    """*orders* as they are handed to the books."""
    sendable, unsendable = encoded(orders)
    assert not unsendable
    return sendable


def arrived(frame):
    """*frame* as the node reads it."""
    return codec.decode_from_server(codec.encode(frame))


class Node:
    """The least a node does: take frames in order, hold what it is told, end some of it."""

    def __init__(self, order_rev):
        self.order_rev = order_rev
        self.taken = []
        self.holds = {}

    def take(self, frame):
        assert frame.after == self.order_rev, "consecutive"
        assert frame.order_rev > self.order_rev
        self.order_rev = frame.order_rev
        return self.apply(frame.items)

    def apply(self, items):
        ended = []
        for it in items:
            self.taken.append(it.rev)
            held = it.execution in self.holds
            if it.want is Want.BID and not held:
                self.holds[it.execution] = False
            elif it.want is Want.RUN:
                self.holds[it.execution] = True
            elif it.want is Want.REJECT and self.holds.get(it.execution) is False:
                del self.holds[it.execution]
            elif it.want is Want.STOP:
                self.holds.pop(it.execution, None)
                ended.append(Report(it.execution, Happened.CANCEL))
        return ended

    def digest(self):
        return digest(self.holds.items())


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("new"),
            st.lists(
                st.tuples(st.integers(0, 50), st.sampled_from(Want), st.integers(0, 90_000)),
                min_size=1,
                max_size=8,
            ),
        ),
        st.tuples(st.just("arrive"), st.integers(1, 5)),
        st.tuples(st.just("acknowledge"), st.none()),
    ),
    max_size=60,
)


@given(steps)
def test_every_order_is_taken_once_in_order_and_the_digests_meet(script):  # noqa: C901
    outgoing = Outgoing(epoch=1, order_rev=0)
    node, rev, link, told, reports = Node(0), 0, deque(), [], []
    stage, named = {}, set()

    def put(frames):
        for frame in frames:
            assert len(codec.encode(frame)) <= MAX_FRAME
            assert len(frame.items) <= BATCH
            link.append(arrived(frame))
        assert outgoing.unacknowledged <= WINDOW

    def acknowledge():
        told.extend(outgoing.taken(node.order_rev))
        outgoing.reported(reports)
        reports.clear()
        put(outgoing.release())

    for step, argument in script:
        if step == "new":
            batch = []
            for execution, want, size in argument:
                if stage.get(execution, 0) >= STAGE[want]:
                    continue
                stage[execution] = STAGE[want]
                named.add(f"e{execution}")
                rev += 1
                batch.append(order(f"e{execution}", want, rev, size))
            put(outgoing.add(rev, sent(*batch)))
        elif step == "arrive":
            for _ in range(min(argument, len(link))):
                reports += node.take(link.popleft())
        else:
            acknowledge()
    while link or outgoing.unacknowledged:
        while link:
            reports += node.take(link.popleft())
        acknowledge()
    assert node.taken == list(range(1, rev + 1))
    assert outgoing.taken_rev == node.order_rev == outgoing.sent_rev == rev
    assert {execution for execution, _ in told} == named
    if rev:
        assert outgoing.compare(rev, node.digest()) is Comparison.EQUAL


@given(st.lists(st.integers(0, MAX_FRAME // 2), max_size=30))
def test_pieces_fit_a_frame_and_lose_nothing(sizes):
    orders = [order(f"e{i}", rev=i + 1, size=size) for i, size in enumerate(sizes)]
    pieces = parts(sent(*orders))
    frames = [arrived(Orders(2**53, 2**53, 2**53, [it.text for it in piece])) for piece in pieces]
    assert [it for frame in frames for it in frame.items] == orders
    assert all(frame.items for frame in frames)


def test_a_frame_has_at_most_so_many_orders():
    pieces = parts(sent(*(order(rev=i) for i in range(BATCH + 1))))
    assert [len(piece) for piece in pieces] == [BATCH, 1]


def test_an_order_that_fits_no_frame_is_named_with_its_size_and_left_out():
    small, huge = order("small"), order("huge", size=MAX_FRAME)
    [left], [out] = encoded([huge, small])
    assert msgspec.json.decode(left.text, type=Order) == small
    assert out == Unsendable("huge", codec.size(huge), LARGEST_ORDER)


def test_the_largest_order_fits_a_frame_and_a_byte_more_does_not():
    empty = codec.size(order(size=1)) - 1
    [largest], _ = encoded([order(size=LARGEST_ORDER - empty)])
    outgoing = Outgoing(2**53, 2**53 - 1)
    [frame] = outgoing.add(2**53, [largest])
    assert codec.encode(frame)
    assert encoded([order(size=LARGEST_ORDER - empty + 1)])[0] == []


def test_beyond_the_window_frames_wait_for_acknowledgements():
    outgoing = Outgoing(1, 0)
    frames = [f for i in range(WINDOW + 2) for f in outgoing.add(i + 1, sent(order(rev=i + 1)))]
    assert len(frames) == WINDOW
    assert outgoing.is_full
    outgoing.taken(1)
    assert [frame.order_rev for frame in outgoing.release()] == [WINDOW + 1]
    outgoing.taken(WINDOW + 1)
    assert [frame.after for frame in outgoing.release()] == [WINDOW + 1]
    assert not outgoing.is_full


def test_the_newest_order_about_an_execution_is_what_was_told():
    outgoing = Outgoing(1, 0)
    outgoing.add(2, sent(order(want=Want.BID, rev=1), order(want=Want.RUN, rev=2)))
    assert outgoing.taken(1) == ()
    assert outgoing.taken(2) == (("e1", Want.RUN),)
    assert outgoing.taken(2) == ()


def test_what_was_never_sent_cannot_be_acknowledged():
    outgoing = Outgoing(1, 5)
    outgoing.replace(5, [])
    assert outgoing.taken(5) == ()
    with pytest.raises(NeverSent):
        outgoing.taken(6)


def test_the_full_set_replaces_what_waited():
    outgoing = Outgoing(1, 0)
    for i in range(WINDOW + 2):
        outgoing.add(i + 1, sent(order(rev=i + 1)))
    assert len(outgoing.replace(100, sent(order("e2", rev=100)))) == 1
    assert not outgoing.is_full
    assert dict(outgoing.taken(100)) == {"e1": Want.RUN, "e2": Want.RUN}
    assert outgoing.add(101, sent(order(rev=101)))[0].after == 100


def test_digests_that_differ_lead_to_the_full_set_and_then_to_a_new_hello():
    outgoing = Outgoing(1, 0, [Held("e1", Holding.RUNNING), Held("e2", Holding.ENDED)])
    outgoing.replace(0, [])
    assert outgoing.compare(0, "other") is Comparison.UNKNOWN, "not yet acknowledged"
    outgoing.taken(0)
    assert outgoing.compare(0, digest([("e1", True)])) is Comparison.EQUAL
    assert outgoing.compare(0, "other") is Comparison.UNKNOWN, "once is no rule"
    assert outgoing.compare(0, "other") is Comparison.DIFFERS
    outgoing.replace(0, [])
    outgoing.taken(0)
    assert outgoing.compare(0, "other") is Comparison.UNKNOWN
    assert outgoing.compare(0, "other") is Comparison.STILL_DIFFERS


def test_reports_end_what_is_held_and_move_it_on():
    outgoing = Outgoing(1, 0)
    outgoing.add(2, sent(order("a", Want.BID, 1), order("b", Want.RUN, 2)))
    outgoing.taken(2)
    assert outgoing.holds() == (Held("a", Holding.BID), Held("b", Holding.PREPARING))
    outgoing.reported([Report("a", Happened.DECLINE), Report("b", Happened.START)])
    assert outgoing.holds() == (Held("b", Holding.RUNNING),)
    outgoing.reported([Report("b", Happened.COMPLETE), Report("stranger", Happened.START)])
    assert outgoing.holds() == ()
