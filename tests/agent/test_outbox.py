"""Reports go out in order, in frames that fit, and again until they are acknowledged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodes.agent.outbox import Outbox
from nodes.protocol import codec
from nodes.protocol.messages import BATCH, MAX_FRAME, TAIL, WINDOW, Happened, Report

SHORT = Report("e", Happened.BID)
LARGE = Report("e", Happened.FAIL, stdout="\x01" * TAIL, stderr="\x01" * TAIL)


def filled(*reports: Report, numbered: int = 0) -> Outbox:
    outbox = Outbox(numbered=numbered)
    for report in reports:
        outbox.add(report)
    return outbox


def test_numbers_go_on_where_a_former_run_ended_whichever_is_higher():
    assert Outbox(numbered=7).add(SHORT) == 8
    assert Outbox(((3, SHORT), (9, SHORT)), numbered=7).add(SHORT) == 10
    assert Outbox().add(SHORT) == 1


def test_each_frame_is_filled_before_the_next_and_no_more_go_than_the_window_takes():
    outbox = filled(*[SHORT] * (BATCH * WINDOW + 1))
    frames = outbox.frames(5, 2)
    assert [(it.epoch, it.seq, it.order_rev, len(it.items)) for it in frames] == [
        (5, seq, 2, BATCH) for seq in range(1, WINDOW + 1)
    ]
    assert outbox.frames(5, 2) == []
    assert len(outbox.acknowledge(1) or ()) == BATCH
    assert [(it.seq, len(it.items)) for it in outbox.frames(5, 2)] == [(WINDOW + 1, 1)]


def test_a_revision_of_orders_is_told_once_and_again_when_it_is_asked_for():
    outbox = Outbox()
    assert [it.order_rev for it in outbox.frames(1, 4)] == [4]
    assert outbox.frames(1, 4) == []
    assert [(it.seq, it.order_rev) for it in outbox.frames(1, 5)] == [(2, 5)]
    outbox.tell_again()
    assert [(it.seq, it.items) for it in outbox.frames(1, 5)] == [(3, ())]


def test_an_acknowledgement_covers_what_was_sent_up_to_it_once():
    outbox = filled(SHORT)
    outbox.frames(1, 1)
    outbox.add(LARGE)
    outbox.frames(1, 1)
    outbox.add(SHORT)
    assert len(outbox) == 3
    assert outbox.acknowledge(3) is None
    assert outbox.acknowledge(2) == [(1, SHORT), (2, LARGE)]
    assert outbox.acknowledge(2) == []
    assert len(outbox) == 1


@given(st.lists(st.sampled_from([SHORT, LARGE]), max_size=20), st.integers(0, 3))
def test_in_a_new_epoch_all_that_is_not_acknowledged_goes_again_in_its_order(reports, covered):
    outbox = filled(*reports)
    sent = outbox.frames(1, 1)
    assert all(codec.size(it) <= MAX_FRAME for it in sent)
    done = outbox.acknowledge(min(covered, len(sent))) or []
    outbox.reopen()
    left = [number for number in range(1, len(reports) + 1) if number > len(done)]
    again = []
    while frames := outbox.frames(2, 1):
        again += [report for it in frames for report in it.items]
        outbox.acknowledge(frames[-1].seq)
    assert again == [reports[number - 1] for number in left]
