"""Greeting, fencing, beating and falling silent, on a real database."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import msgspec
import pytest
from django.db import connection, connections, transaction

from nodes import membership
from nodes.callbacks import Inbound, Verdict
from nodes.errors import (
    InvalidLabels,
    InvalidOffer,
    Quarantined,
    Removed,
    Revoked,
    Superseded,
    TooLittleIsolation,
)
from nodes.membership import Beat, Patience, Silence
from nodes.membership.joining import Clock
from nodes.membership.silence import EARS, listen
from nodes.models import Listening, Node, NodeHeartbeat, NodeSession
from nodes.protocol.messages import Hello
from nodes.protocol.resources import Resources

pytestmark = pytest.mark.django_db

HELLO = Hello(
    version=1,
    instance="i1",
    run=1,
    ledger="l1",
    boot="b1",
    resources=Resources(cpu=4000, memory=8 << 30),
    attributes={"os": "linux", "driver.process": "1"},
)


def hello(**changes):
    return msgspec.structs.replace(HELLO, **changes)


def node(name="n", approval="approved", **columns):
    made = Node.objects.create(name=name, approval=approval)
    if columns:  # What a node does not begin with, it comes to.
        Node.objects.filter(pk=made.pk).update(**columns)
        made.refresh_from_db()
    return made


def greet(of, said=HELLO, record=lambda *_: None):
    return membership.greet(of.pk, said, "web:1", record=record)


def was_heard(ago, of=None):
    """Make the node's last heartbeat *ago* seconds old, and our ears older still."""
    heard = NodeHeartbeat.objects.filter(node=of) if of else NodeHeartbeat.objects
    heard.update(seen_at=Clock() - timedelta(seconds=ago))


def was_there(who, ago):
    """As if *who* had last listened *ago* seconds ago."""
    Listening.objects.filter(who=who).update(at=Clock() - timedelta(seconds=ago))


def attentive(since=3600):
    """As if the detector had been at work, without a break, for an hour."""
    listen("detector")
    Listening.objects.update(since=Clock() - timedelta(seconds=since))


def inbound(of, seq, epoch=1):
    return Inbound(of.pk, epoch, seq, 0, (), ())


# --- greeting ----------------------------------------------------------------------------------


def test_a_greeting_begins_an_epoch_and_takes_over_what_the_node_offers():
    n = node(order_rev=7)
    greeting = greet(n)
    assert (greeting.epoch, greeting.approved, greeting.order_rev) == (1, True, 7)
    n.refresh_from_db()
    assert (n.connection, n.capacity_cpu, n.advertised_memory) == ("connected", 4000, 8 << 30)
    assert n.attributes["node.driver.process"] == "1"
    assert NodeHeartbeat.objects.filter(node=n).exists()


def test_capacity_does_not_shrink_below_what_is_allocated():
    n = node(capacity_cpu=8000, allocated_cpu=6000)
    greet(n)
    n.refresh_from_db()
    assert (n.advertised_cpu, n.capacity_cpu) == (4000, 6000)


@pytest.mark.parametrize(
    "again",
    [
        hello(),
        hello(instance="i2", run=2),
        hello(instance="i2", run=2, boot="b2"),
    ],
)
def test_the_same_agent_or_its_successor_supersedes_its_link(again):
    n = node()
    greet(n)
    assert greet(n, again).epoch == 2


@pytest.mark.parametrize("other", [hello(ledger="l2"), hello(instance="i2")])
def test_two_live_agents_with_one_identity_are_both_shut_out(other):
    n = node()
    greet(n)
    with pytest.raises(Quarantined):
        greet(n, other)
    n.refresh_from_db()
    assert n.quarantined
    assert n.connection == "disconnected"
    assert membership.fence([inbound(n, 1)]) == [Verdict.FENCED]
    with pytest.raises(Quarantined):
        greet(n)
    membership.release(n.pk, actor="ada")
    assert greet(n, other).epoch > 1


@pytest.mark.parametrize("other", [hello(ledger="l2"), hello(instance="i2"), hello(run=0)])
def test_when_the_holder_is_gone_another_may_take_its_place(other):
    n = node()
    greet(n)
    membership.leave(n.pk, 1)
    assert greet(n, other).epoch == 2


def test_a_quarantine_is_recorded_once_in_its_transaction():
    n, told = node(), []

    def record(of, what, message):
        assert connection.in_atomic_block
        told.append((of, what, message))

    greet(n)
    for _ in range(2):
        with pytest.raises(Quarantined, match=r"^The node n is quarantined: ") as refused:
            greet(n, hello(instance="i2"), record)
    assert told == [(n.pk, "quarantine", str(refused.value).removeprefix("The node ").rstrip("."))]
    assert "`muster node release n`" in refused.value.hint


def test_a_removed_node_is_told_so_and_heard_of_no_longer():
    n = node()
    greet(n)
    membership.remove(n.pk, actor="ada")
    with pytest.raises(Removed, match="n was removed"):
        greet(n)
    beat = membership.beat([Beat(n.pk, 1)])
    assert (beat.removed, beat.fenced) == ({n.pk}, frozenset())
    assert membership.fence([inbound(n, 1)]) == [Verdict.FENCED]
    was_heard(3600)
    attentive()
    assert membership.detect_silence() == Silence((), ())


def test_a_silent_holder_is_gone_even_if_nobody_has_said_so_yet():
    n = node()
    greet(n)
    was_heard(31)
    assert greet(n, hello(ledger="l2")).epoch == 2


def test_an_older_copy_of_the_ledger_is_turned_away_and_the_holder_stays():
    n = node()
    greet(n, hello(run=5))
    with pytest.raises(Superseded):
        greet(n, hello(run=4, instance="old"))
    assert membership.fence([inbound(n, 1)]) == [Verdict.ACCEPTED]


def test_an_older_copy_that_was_told_of_the_newer_and_asks_again_shuts_both_out():
    n = node()
    greet(n, hello(run=5))
    with pytest.raises(Quarantined):
        greet(n, hello(run=4, instance="old", fenced=True))
    assert membership.fence([inbound(n, 1)]) == [Verdict.FENCED]


def test_a_fenced_agent_is_the_node_again_when_the_newer_is_gone():
    n = node()
    greet(n, hello(run=5))
    membership.leave(n.pk, 1)
    assert greet(n, hello(run=4, instance="old", fenced=True)).epoch == 2


def test_a_rejected_node_is_not_greeted():
    with pytest.raises(Revoked):
        greet(node(approval="rejected"))


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (hello(resources=Resources(cpu=-1)), InvalidOffer),
        (hello(attributes={"a b": "x"}), InvalidLabels),
        (hello(attributes={"a": "x" * 2000}), InvalidLabels),
    ],
)
def test_an_offer_that_makes_no_sense_is_refused(said, error):
    n = node()
    with pytest.raises(error):
        greet(n, said)
    assert Node.objects.get().connection == "disconnected"


@pytest.mark.parametrize(
    "said", [{}, {"isolation": "none"}, {"isolation": "user"}, {"isolation": "?"}]
)
def test_a_node_that_walls_its_tasks_off_too_little_is_turned_away_until_it_does(said, settings):
    settings.MINIMUM_ISOLATION = "cgroup"
    n, told = node(), []

    def record(*event):
        told.append(event)

    for _ in range(2):
        with pytest.raises(TooLittleIsolation, match="this cluster takes nodes from cgroup up"):
            membership.greet(n.pk, hello(attributes=said), "web", record=record)
    assert len(told) == 1, "an agent asks again and again"
    n.refresh_from_db()
    assert "from cgroup up" in n.degraded
    assert n.connection == "disconnected"
    membership.greet(n.pk, hello(attributes={"isolation": "sandbox"}), "web", record=record)
    n.refresh_from_db()
    assert (n.degraded, n.connection) == ("", "connected")
    assert told[-1][2] == f"{n.name} takes new work again"


def test_an_offer_beyond_all_machines_is_cut_down():
    n = node()
    greet(n, hello(resources=Resources(cpu=2**62, memory=2**62, disk=2**62, gpu=2**62)))
    n.refresh_from_db()
    assert (n.capacity_cpu, n.capacity_gpu) == (10_000_000, 4096)


# --- fencing -----------------------------------------------------------------------------------


def test_frames_count_once_in_order_and_in_the_current_epoch_only():
    a, b = node("a"), node("b")
    greet(a), greet(b), greet(b)
    frames = [
        inbound(a, 1),
        inbound(b, 1, epoch=2),
        inbound(a, 2),
        inbound(a, 2),
        inbound(a, 4),
        inbound(a, 3),
        inbound(b, 2, epoch=1),
        inbound(b, 2, epoch=3),
        Inbound(uuid4(), 1, 1, 0, (), ()),
    ]
    assert [v.name for v in membership.fence(frames)] == [
        "ACCEPTED",
        "ACCEPTED",
        "ACCEPTED",
        "REPEATED",
        "OUT_OF_SEQUENCE",
        "ACCEPTED",
        "FENCED",
        "FENCED",
        "FENCED",
    ]
    assert NodeSession.objects.get(node=a).received == 3
    assert NodeSession.objects.get(node=b).received == 1


def test_what_was_rolled_back_was_not_received():
    n = node()
    greet(n)
    with transaction.atomic():
        membership.fence([inbound(n, 1)])
        transaction.set_rollback(True)
    assert membership.fence([inbound(n, 1)]) == [Verdict.ACCEPTED]


def test_nothing_received_is_nothing_locked():
    assert membership.fence([]) == []


@pytest.mark.django_db(transaction=True)
def test_a_frame_sent_by_eight_threads_in_any_order_of_nodes_is_accepted_once():
    nodes = [node(f"n{i}") for i in range(5)]
    for it in nodes:
        greet(it)

    def receive(number):
        frames = [inbound(it, seq) for seq in (1, 2, 3) for it in nodes]
        if number % 2:
            frames.sort(key=lambda frame: (frame.seq, str(frame.node)), reverse=False)
        else:
            frames.sort(key=lambda frame: (-frame.seq, str(frame.node)), reverse=True)
        try:
            with transaction.atomic():
                return list(zip(frames, membership.fence(frames), strict=True))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as threads:
        results = [it for batch in threads.map(receive, range(40)) for it in batch]
    accepted = [(f.node, f.seq) for f, verdict in results if verdict is Verdict.ACCEPTED]
    assert sorted(accepted) == sorted((it.pk, seq) for it in nodes for seq in (1, 2, 3))


@pytest.mark.django_db(transaction=True)
def test_of_greetings_at_once_each_gets_an_epoch_of_its_own():
    n = node()

    def once(_):
        try:
            return greet(n).epoch
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as threads:
        epochs = list(threads.map(once, range(16)))
    assert sorted(epochs) == list(range(1, 17))


# --- beating and leaving -----------------------------------------------------------------------


def test_a_beat_is_written_for_the_current_epoch_only():
    a, b, gone = node("a"), node("b"), uuid4()
    greet(a), greet(b), greet(b)
    was_heard(20)
    outdated = membership.beat(
        [Beat(a.pk, 1, running=3, load=0.5), Beat(b.pk, 1), Beat(gone, 1, running=2**60)]
    )
    assert outdated.fenced == {b.pk, gone}
    assert not outdated.given_up
    assert NodeHeartbeat.objects.get(node=a).running == 3
    attentive()
    silent = membership.detect_silence(Patience(disconnected=timedelta(seconds=10)))
    assert silent.disconnected == (b.pk,)


def test_what_a_session_has_not_said_yet_stays_as_it_was():
    n = node("n")
    greet(n)
    membership.beat([Beat(n.pk, 1, running=3, load=0.5)])
    greet(n)
    membership.beat([Beat(n.pk, 2)])
    beaten = NodeHeartbeat.objects.get(node=n)
    assert (beaten.running, beaten.load) == (3, 0.5)


def test_a_beat_brings_a_disconnected_node_back_and_tells_a_lost_one_to_say_hello():
    late, lost = node("late"), node("lost")
    greet(late), greet(lost)
    Node.objects.update(connection="disconnected")
    Node.objects.filter(pk=lost.pk).update(connection="lost")
    odd = membership.beat([Beat(late.pk, 1), Beat(lost.pk, 1)])
    assert odd.given_up == {lost.pk}
    assert odd.back == {late.pk}
    assert not odd.fenced
    membership.reconnect({late.pk: 1, lost.pk: 1})
    assert Node.objects.get(pk=late.pk).connection == "connected"
    assert Node.objects.get(pk=lost.pk).connection == "lost"
    assert greet(lost).epoch == 2
    assert Node.objects.get(pk=lost.pk).connection == "connected"


def test_a_beat_that_says_otherwise_than_the_row_why_the_node_takes_no_work_is_told():
    n, told = node(), []
    greet(n, hello(degraded="its disk is full"), lambda _, *fact: told.append(fact))
    assert told == [("degraded", "n takes no new work: its disk is full")]
    assert membership.beat([Beat(n.pk, 1, degraded="its disk is full")]).changed == frozenset()
    odd = membership.beat([Beat(n.pk, 1)])
    assert (odd.changed, odd.back, odd.given_up) == ({n.pk}, frozenset(), frozenset())
    assert membership.beat([Beat(n.pk, 0)]).changed == frozenset()
    assert membership.set_degraded({n.pk: (0, "")}) == []
    assert [it.degraded for it in membership.set_degraded({n.pk: (1, "")})] == [""]
    assert membership.beat([Beat(n.pk, 1, degraded="x" * 4096)]).changed == {n.pk}
    assert len(membership.set_degraded({n.pk: (1, "x" * 4096)})) == 1
    assert membership.beat([Beat(n.pk, 1, degraded="x" * 4096)]).changed == frozenset()


def test_only_the_newest_link_disconnects_its_node_by_closing():
    n = node()
    greet(n), greet(n)
    assert not membership.leave(n.pk, 1)
    assert Node.objects.get().connection == "connected"
    assert membership.leave(n.pk, 2)
    assert not membership.leave(n.pk, 2)
    assert Node.objects.get().connection == "disconnected"


# --- silence -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ago", "disconnected", "lost"), [(29, 0, 0), (31, 1, 0), (89, 1, 0), (91, 1, 1)]
)
def test_silence_disconnects_after_30_seconds_and_loses_after_90(ago, disconnected, lost):
    greet(node())
    attentive()
    was_heard(ago)
    found = membership.detect_silence()
    assert (len(found.disconnected), len(found.lost)) == (disconnected, lost)
    again = membership.detect_silence()
    assert (again.disconnected, again.lost) == ((), ())


def test_a_node_whose_link_closed_is_lost_90_seconds_after_it_was_last_heard():
    n = node()
    greet(n)
    membership.leave(n.pk, 1)
    attentive()
    was_heard(89)
    assert not membership.detect_silence().lost
    was_heard(91)
    assert membership.detect_silence().lost == (n.pk,)
    assert Node.objects.get().connection == "lost"


def test_a_node_that_never_came_is_not_lost():
    node()
    attentive()
    assert not membership.detect_silence().lost


def test_when_the_detector_was_away_all_deadlines_begin_anew():
    greet(node())
    attentive()
    was_heard(3600)
    was_there("detector", 4)
    assert not membership.detect_silence().disconnected
    assert membership.detect_silence(Patience(disconnected=timedelta(0))).disconnected


def test_while_no_web_process_hears_nobody_is_silent_but_not_for_ever():
    greet(node())
    listen(EARS)
    attentive()
    was_heard(100)
    was_there(EARS, 100)
    assert not membership.detect_silence().disconnected
    was_heard(3600)
    assert membership.detect_silence().lost


def test_after_a_deaf_time_the_nodes_get_their_time_again():
    greet(node())
    listen(EARS)
    attentive()
    was_heard(100)
    was_there(EARS, 100)
    listen(EARS)
    assert not membership.detect_silence().disconnected


@pytest.mark.parametrize("since", [3600, -3600])
def test_when_the_clock_was_set_back_while_no_web_process_hears_it_is_waited_for_as_ever(since):
    greet(node())
    listen(EARS)
    attentive(since)
    was_there("detector", -3600)
    was_there(EARS, -3600)
    was_heard(-3600)
    at_once = Patience(disconnected=timedelta(0))
    assert not membership.detect_silence(at_once).disconnected
    at_once = Patience(disconnected=timedelta(0), deaf=timedelta(0))
    assert membership.detect_silence(at_once).disconnected


def test_a_clock_that_was_set_back_keeps_no_silent_node_connected():
    greet(node())
    listen(EARS)
    attentive(-3600)
    was_there("detector", -3600)
    was_there(EARS, -3600)
    was_heard(-3600)
    listen(EARS)
    assert not membership.detect_silence().disconnected
    assert membership.detect_silence(Patience(disconnected=timedelta(0))).disconnected
