"""What the core decides, message by message."""

from __future__ import annotations

from itertools import count

import pytest

from nodes.agent.core import Core
from nodes.agent.effects import Discard, Drop, Effect, Follow, Send, Start, Stop
from nodes.agent.facts import Exited, NeverStarted, NotStarted, Started, Vanished
from nodes.agent.records import Entry, Machine, Saved, Stage
from nodes.protocol.messages import (
    BATCH,
    MAX_FRAME,
    TAIL,
    WINDOW,
    Ack,
    Close,
    Desired,
    Happened,
    Heartbeat,
    Held,
    Hello,
    Holding,
    Order,
    Orders,
    Pulse,
    Report,
    Task,
    Want,
    Watch,
    Welcome,
)
from nodes.protocol.resources import Resources
from nodes.protocol.session import digest
from nodes.session_protocol import MOST_BEATS

TRUE = Task("process", ("true",))
WHOLE = Resources(cpu=1000)
HEARTBEAT = 10.0


class Node:
    """A core with a session, committing as its runner would."""

    def __init__(
        self, saved: Saved | None = None, *desired: Order, capacity: Resources = WHOLE
    ) -> None:
        self.graves: dict[str, Report | None] = {}
        machine = Machine("i", 1, "l", "b", capacity, {"os": "linux"}, {"process"})
        self.core = Core(machine, saved or Saved(), self.recall)
        self.rev, self.said = 0, []  # type: int, list[Report]
        self.hello = self.core.opened(0.0)
        self.effects = self.core.receive(
            Welcome(1, "n", len(desired), desired, HEARTBEAT, True), 0.0
        )
        self.rev = len(desired)
        self.listen()

    def recall(self, execution: str) -> tuple[bool, Report | None]:
        return execution in self.graves, self.graves.get(execution)

    def listen(self) -> list[Report]:
        """Commit, and take what is reported now."""
        self.graves |= self.core.take_changes().tombstones
        self.frames = self.core.reports()
        reports = [report for frame in self.frames for report in frame.items]
        self.said += reports
        return reports

    def order(self, want: Want, execution: str = "e", **rest: object) -> list[Effect]:
        self.rev += 1
        values = {"resources": Resources(cpu=400), **rest}
        if want in (Want.BID, Want.RUN):
            values.setdefault("task", TRUE)
        order = Order(execution, want, self.rev, **values)  # type: ignore[arg-type]
        return self.core.receive(Orders(1, self.rev - 1, self.rev, (order,)), 0.0)

    def acknowledge(self, seq: int) -> list[Effect]:
        return self.core.receive(Ack(1, seq), 0.0)


def happened(reports: list[Report]) -> list[tuple[Happened, str]]:
    return [(report.happened, report.code) for report in reports]


# --- orders --------------------------------------------------------------------------------------


def test_a_bid_holds_the_resources_and_goes_with_the_acknowledgement():
    node = Node()
    assert node.order(Want.BID) == []
    assert happened(node.listen()) == [(Happened.BID, "")]
    assert node.frames[0].order_rev == 1
    assert node.core.used == Resources(cpu=400)


def test_what_does_not_fit_beside_what_is_held_is_declined_with_numbers():
    node = Node()
    node.order(Want.BID, "a")
    node.order(Want.BID, "b")
    node.order(Want.BID, "c")
    declined = node.listen()[-1]
    assert (declined.happened, declined.code) == (Happened.DECLINE, "no-capacity")
    assert declined.message == (
        "needs cpu 400 millicores, cpu 200 millicores of cpu 1000 millicores free"
    )


def test_a_rejected_bid_lets_its_resources_go_and_says_nothing():
    node = Node()
    node.order(Want.BID)
    node.listen()
    assert node.order(Want.REJECT) == []
    assert node.listen() == []
    assert node.core.used == Resources()
    assert node.core.entries == {}


def test_run_starts_a_held_bid_once():
    node = Node()
    node.order(Want.BID)
    [start] = node.order(Want.RUN)
    assert isinstance(start, Start)
    assert start.entry.task == TRUE
    assert node.order(Want.RUN) == []


def test_run_without_a_bid_is_admitted_or_declined():
    node = Node()
    assert [type(effect) for effect in node.order(Want.RUN, "a")] == [Start]
    assert node.order(Want.RUN, "b", resources=Resources(cpu=601)) == []
    assert happened(node.listen()) == [(Happened.DECLINE, "no-capacity")]


def test_stop_of_something_never_seen_cancels_it_for_ever():
    node = Node()
    assert node.order(Want.STOP) == []
    assert happened(node.listen()) == [(Happened.CANCEL, "stopped")]
    node.acknowledge(node.frames[0].seq)
    assert node.order(Want.RUN) == []
    assert happened(node.listen()) == [(Happened.CANCEL, "stopped")]


def test_stop_of_a_held_bid_cancels_it_and_frees_its_resources():
    node = Node()
    node.order(Want.BID)
    node.order(Want.STOP)
    assert happened(node.listen()) == [(Happened.BID, ""), (Happened.CANCEL, "stopped")]
    assert node.core.used == Resources()


def test_stop_of_a_running_task_is_asked_once_and_confirmed_when_it_is_over():
    node = Node()
    node.order(Want.RUN)
    node.core.observe(Started("e"))
    assert node.order(Want.STOP) == [Stop("e", "process")]
    assert node.order(Want.STOP) == []
    node.core.observe(Exited("e", -15, why="stopped"))
    assert happened(node.listen()) == [(Happened.START, ""), (Happened.CANCEL, "stopped")]


def test_a_task_that_ended_by_itself_before_the_stop_reached_it_is_told_as_it_was():
    node = Node()
    node.order(Want.RUN)
    node.order(Want.STOP)
    node.core.observe(Exited("e", 0))
    assert happened(node.listen()) == [(Happened.START, ""), (Happened.COMPLETE, "")]


def test_what_was_acknowledged_is_forgotten_but_never_begun_again():
    node = Node()
    node.order(Want.RUN)
    node.core.observe(Exited("e", 3, stdout="out", stdout_size=3))
    node.listen()
    assert node.acknowledge(node.frames[0].seq) == [Discard("e", "process")]
    assert node.core.entries == {}
    assert node.order(Want.RUN) == []
    [again] = node.listen()
    assert (again.happened, again.exit_code, again.stdout) == (Happened.FAIL, 3, "")


def test_repeated_orders_change_nothing_and_missing_ones_end_the_link():
    node = Node()
    node.order(Want.BID)
    again = Order("e", Want.BID, 1, task=TRUE)
    assert node.core.receive(Orders(1, 0, 1, (again,)), 0.0) == []
    [drop] = node.core.receive(Orders(1, 2, 3, ()), 0.0)
    assert isinstance(drop, Drop)
    assert drop.code == Close.OUT_OF_SEQUENCE
    assert drop.reason == "orders after 2 came, 1 was the last known"


def test_frames_of_another_epoch_are_ignored():
    node = Node()
    order = Order("e", Want.RUN, 1, task=TRUE)
    assert node.core.receive(Orders(7, 0, 1, (order,)), 0.0) == []
    assert node.core.entries == {}


def test_a_desired_set_in_several_frames_counts_when_it_is_whole():
    core = Node().core
    core.opened(0.0)
    run = [Order(name, Want.RUN, 1, task=TRUE) for name in "ab"]
    assert core.receive(Welcome(2, "n", 5, (run[0],), 10.0, True, more=True), 0.0) == []
    assert core.reports() == []
    assert core.entries == {}
    effects = core.receive(Desired(2, 5, (run[1],)), 0.0)
    assert [effect.entry.execution for effect in effects if isinstance(effect, Start)] == ["a", "b"]
    assert [frame.order_rev for frame in core.reports()] == [5]


def test_what_a_later_frame_of_the_desired_set_begins_is_committed_first():
    core = Node().core
    core.closed()
    core.opened(1.0)
    core.receive(Welcome(2, "n", 5, (), HEARTBEAT, True, more=True), 1.0)
    core.take_changes()  # A turn of its own, which has committed the revision.
    run = Order("e", Want.RUN, 5, task=TRUE, resources=Resources(cpu=400))
    [start] = core.receive(Desired(2, 5, (run,)), 1.0)
    assert isinstance(start, Start)
    assert core.changes.urgent


def test_a_desired_set_is_acknowledged_also_when_it_brings_nothing_new():
    node = Node()
    node.order(Want.BID)
    node.listen()
    order = Order("e", Want.BID, 1, task=TRUE)
    assert node.core.receive(Desired(1, 1, (order,)), 0.0) == []
    assert node.listen() == []
    assert [(frame.order_rev, frame.items) for frame in node.frames] == [(1, ())]


def test_executions_that_the_orchestrator_does_not_name_keep_running():
    saved = Saved(entries=(Entry("e", Stage.RUNNING, task=TRUE, driver="process"),))
    node = Node(saved)
    assert isinstance(node.hello[0], Send)
    assert isinstance(hello := node.hello[0].message, Hello)
    assert hello.holds == (Held("e", Holding.RUNNING),)
    assert node.effects == []
    assert node.core.is_live("e")


# --- facts ---------------------------------------------------------------------------------------


def test_how_a_task_ended_is_said_in_words():
    cases = (
        (Exited("e", 0), (Happened.COMPLETE, "", "", 0)),
        (Exited("e", 3), (Happened.FAIL, "exit-code", "the task exited with code 3", 3)),
        (Exited("e", -11), (Happened.FAIL, "signal", "the task was killed by SIGSEGV (11)", None)),
        (
            Exited("e", -15, why="timeout"),
            (
                Happened.FAIL,
                "timeout",
                "ran longer than the 2.5 s it was allowed; the task was killed by SIGTERM (15)",
                None,
            ),
        ),
        (NotStarted("e", "no such file"), (Happened.FAIL, "not-started", "no such file", None)),
        (Vanished("e", "gone"), (Happened.FAIL, "unknown-outcome", "gone", None)),
    )
    for fact, expected in cases:
        node = Node()
        node.order(Want.RUN, timeout=2.5)
        node.core.observe(fact)
        final = node.listen()[-1]
        assert (final.happened, final.code, final.message, final.exit_code) == expected


def test_a_limit_of_a_month_is_said_in_plain_digits():
    node = Node()
    node.order(Want.RUN, timeout=30 * 86400.0)
    node.core.observe(Exited("e", -15, why="timeout"))
    assert node.listen()[-1].message.startswith("ran longer than the 2592000 s it was allowed")


def test_that_a_task_began_is_told_once_and_how_to_find_it_again_is_kept():
    node = Node()
    node.order(Want.RUN)
    node.listen()
    assert node.core.observe(Started("e", "1:2:3")) == []
    assert node.core.entries["e"].handle == "1:2:3"
    assert node.listen() == [Report("e", Happened.START)]


def test_an_end_is_saved_at_once_and_a_beginning_may_wait():
    node = Node()
    node.order(Want.RUN)
    node.listen()
    node.core.observe(Started("e"))
    assert not node.core.changes.urgent
    assert node.core.is_live("e")
    node.core.observe(Exited("e", 0))
    assert node.core.changes.urgent
    assert not node.core.is_live("e")
    assert not node.core.is_live("unknown")


def test_what_a_driver_tells_of_a_task_is_reported_whole():
    node = Node()
    node.order(Want.RUN, "fast")
    node.core.observe(Exited("fast", 0))
    complete = Report("fast", Happened.COMPLETE, 0)
    assert node.listen() == [Report("fast", Happened.START), complete]

    node.acknowledge(node.frames[0].seq)
    assert node.core.changes.acked == 2

    node.order(Want.RUN, "slow")
    assert node.core.observe(NeverStarted("slow")) == [Start(node.core.entries["slow"])]
    node.order(Want.STOP, "slow")
    node.core.observe(NeverStarted("slow"))
    not_begun = Report("slow", Happened.CANCEL, code="stopped", message="it had not begun")
    assert node.listen() == [not_begun]

    node.order(Want.RUN, "lost")
    node.core.observe(Started("lost"))
    node.listen()
    node.core.observe(NeverStarted("lost"))
    why = "the task ran, and nothing of it is left to tell how it ended"
    lost = Report("lost", Happened.FAIL, code="unknown-outcome", message=why)
    assert node.listen() == [lost]


def test_a_fact_told_twice_is_reported_once():
    node = Node()
    node.order(Want.RUN)
    for fact in (Started("e"), Started("e"), Exited("e", 0), Exited("e", 0), Started("e")):
        node.core.observe(fact)
    assert happened(node.listen()) == [(Happened.START, ""), (Happened.COMPLETE, "")]


def test_what_never_started_is_started_unless_it_should_stop():
    node = Node()
    node.order(Want.RUN)
    [start] = node.core.observe(NeverStarted("e"))
    assert isinstance(start, Start)
    node.order(Want.STOP)
    assert node.core.observe(NeverStarted("e")) == []
    assert happened(node.listen()) == [(Happened.CANCEL, "stopped")]


@pytest.mark.parametrize("stopping", [False, True])
def test_what_ran_is_never_started_again_whatever_its_driver_says(stopping):
    ran = Entry("e", Stage.RUNNING, task=TRUE, driver="process", handle="1:2:3", stopping=stopping)
    node = Node(Saved(entries=(ran,)))
    assert node.core.observe(NeverStarted("e")) == []
    assert happened(node.listen()) == [(Happened.FAIL, "unknown-outcome")]


@pytest.mark.parametrize(
    ("fact", "code"),
    [(Exited("stray", 0, "stopped"), "stopped"), (Vanished("stray"), "unknown-outcome")],
)
def test_what_ran_without_being_known_here_is_not_begun_after_its_end(fact, code):
    node = Node()
    assert node.core.observe(fact) == []
    assert node.core.changes.urgent, "what proves that it ran goes with its directory"
    assert node.listen() == []
    assert node.order(Want.RUN, "stray") == []
    assert [it.code for it in node.listen()] == [code]
    assert node.core.observe(NeverStarted("unknown")) == []
    assert [type(it) for it in node.order(Want.RUN, "unknown")] == [Start]


def test_what_ran_while_an_older_ledger_holds_its_bid_is_not_begun_after_its_end():
    node = Node(Saved(entries=(Entry("e", Stage.HELD, task=TRUE, resources=Resources(cpu=1)),)))
    node.core.observe(Exited("e", 7))
    assert node.core.used == Resources()
    assert node.order(Want.RUN) == []
    assert [it.exit_code for it in node.listen()] == [7]


def test_a_restart_of_the_machine_is_remembered_until_its_consequences_are_saved():
    began = Entry("e", Stage.STARTING, task=TRUE, driver="process")
    machine = Machine("i", 1, "l", "now", Resources(cpu=1000), {}, {"process"})
    core = Core(machine, Saved(boot="before", entries=(began,)), lambda _: (False, None))
    assert core.rebooted
    core.observe(Vanished("e"))
    changes = core.take_changes()
    assert (changes.boot, changes.entries["e"].stage) == ("now", Stage.ENDED)
    assert not Core(machine, Saved(boot="now"), lambda _: (False, None)).rebooted


def test_a_stop_from_before_a_crash_is_repeated_when_the_task_is_found():
    entry = Entry("e", Stage.RUNNING, task=TRUE, driver="process", stopping=True)
    node = Node(Saved(entries=(entry,)))
    assert node.core.interrupted() == [entry]
    assert node.core.observe(Started("e")) == [Stop("e", "process")]


# --- reports -------------------------------------------------------------------------------------


def test_reports_go_again_in_a_new_epoch_until_they_are_acknowledged():
    node = Node()
    node.order(Want.BID)
    node.listen()
    node.core.closed()
    node.core.opened(1.0)
    node.core.receive(Welcome(2, "n", 1, (), HEARTBEAT, True), 1.0)
    assert happened(node.listen()) == [(Happened.BID, "")]
    assert [(frame.epoch, frame.seq) for frame in node.frames] == [(2, 1)]
    node.core.receive(Ack(2, 1), 1.0)
    node.core.opened(2.0)
    node.core.receive(Welcome(3, "n", 1, (), HEARTBEAT, True), 2.0)
    assert node.listen() == []


def test_no_more_frames_are_under_way_than_the_window_allows():
    names = [f"e{number}" for number in range(WINDOW * BATCH + 300)]
    saved = Saved(reports=tuple(zip(count(1), (Report(n, Happened.BID) for n in names))))
    node = Node(saved)
    assert len(node.frames) == WINDOW
    node.acknowledge(2)
    node.listen()
    assert [len(frame.items) for frame in node.frames] == [BATCH, 300 - BATCH]
    assert [report.execution for report in node.said] == names


def test_long_tails_are_spread_over_frames_that_fit():
    worst = "\x01" * TAIL
    reports = [Report(f"e{n}", Happened.FAIL, stdout=worst, stderr=worst) for n in range(20)]
    node = Node(Saved(reports=tuple(enumerate(reports, 1))))
    from nodes.protocol import codec

    assert all(codec.size(frame) <= MAX_FRAME for frame in node.frames)
    assert node.said == reports


def test_an_acknowledgement_of_what_was_never_sent_ends_the_link():
    [drop] = Node().acknowledge(99)
    assert isinstance(drop, Drop)


WELCOME = Welcome(2, "n", 5, (), HEARTBEAT, True)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ((Pulse(2),), "pulse came before the welcome"),
        ((WELCOME, WELCOME), "a second welcome on one link"),
        ((WELCOME, Orders(2, 6, 7, ())), "orders after 6 came, 5 was the last known"),
        (
            (Welcome(2, "n", 5, (), HEARTBEAT, True, more=True), Orders(2, 5, 6, ())),
            "orders came before the desired set was whole",
        ),
        ((WELCOME, Ack(2, 7)), "reports up to 7 were never sent"),
    ],
)
def test_what_is_out_of_sequence_ends_the_link_with_the_reason(said, reason):
    core = Node().core
    core.opened(1.0)
    *before, last = said
    for message in before:
        assert core.receive(message, 1.0) == []
    assert core.receive(last, 1.0) == [Drop(Close.OUT_OF_SEQUENCE, reason)]


def test_orders_that_were_known_before_are_passed_over():
    node = Node()
    node.order(Want.BID)
    node.listen()
    again = Order("other", Want.RUN, 1, task=TRUE)
    assert node.core.receive(Orders(1, 0, 1, (again,)), 0.0) == []
    assert list(node.core.entries) == ["e"]
    assert (node.core.order_rev, node.listen()) == (1, [])


# --- time ----------------------------------------------------------------------------------------


def test_heartbeats_say_what_is_held_live_and_told_to_run():
    node = Node()
    node.order(Want.BID, "a")
    node.order(Want.RUN, "b")
    assert node.core.tick(HEARTBEAT - 0.1) == []
    expected = digest([("a", False), ("b", True)])
    assert node.core.tick(HEARTBEAT, 0.5) == [Send(Heartbeat(1, 2, expected, 1, 0.5))]
    assert node.core.wakes_at == 2 * HEARTBEAT


def test_a_link_that_stays_silent_for_three_heartbeats_is_given_up():
    node = Node()
    node.core.receive(Pulse(1), 5.0)
    assert not any(isinstance(e, Drop) for e in node.core.tick(34.9))
    [drop] = node.core.tick(35.0)
    assert isinstance(drop, Drop)
    assert (drop.code, drop.reason) == (Close.SHUTTING_DOWN, "nothing was heard for 30 s")
    assert node.core.wakes_at is None
    assert node.core.tick(36.0) == []
    assert node.core.opened(37.0) != []
    assert node.core.wakes_at == 67.0


def test_without_a_link_nothing_is_heard_said_or_waited_for():
    node = Node()
    node.order(Want.BID)
    node.core.closed()
    assert node.order(Want.RUN) == []
    assert node.core.tick(1000.0) == []
    assert node.core.degrade("its disk is full", 1.0) == []
    assert (node.core.epoch, node.core.wakes_at, node.core.reports()) == (None, None, [])


def test_a_link_is_given_up_once_whatever_still_comes_over_it():
    node = Node()
    [drop] = node.acknowledge(99)
    assert isinstance(drop, Drop)
    assert node.acknowledge(99) == []
    assert node.order(Want.RUN) == []
    assert node.core.entries == {}


def test_watches_are_passed_on():
    node = Node()
    watch = Watch(1, "w", "e", "stdout")
    assert node.core.receive(watch, 0.0) == [Follow(watch)]


def test_a_degraded_node_says_so_at_once_and_begins_nothing_new():
    node = Node()
    node.order(Want.BID, "held")
    node.order(Want.RUN, "runs")
    node.listen()
    [send] = node.core.degrade("its disk is full", 1.0)
    assert isinstance(send, Send)
    assert isinstance(send.message, Heartbeat)
    assert send.message.degraded == "its disk is full"
    assert node.core.degrade("its disk is full", 2.0) == []
    assert node.order(Want.BID, "new") == []
    assert node.order(Want.RUN, "held", task=None) == []
    assert happened(node.listen()) == [(Happened.DECLINE, "degraded")] * 2
    assert node.core.used == Resources(cpu=400)
    [hello] = node.core.opened(3.0)
    assert isinstance(hello, Send)
    assert isinstance(hello.message, Hello)
    assert hello.message.degraded == "its disk is full"
    assert node.core.degrade("", 4.0) == [], "nothing is said before the welcome"
    node.core.receive(Welcome(2, "n", 3, (), HEARTBEAT, True), 5.0)
    assert node.core.wakes_at == 5.0
    [send] = node.core.tick(5.0)
    assert isinstance(send, Send)
    assert isinstance(send.message, Heartbeat)
    assert send.message.degraded == ""


def test_reasons_that_change_again_and_again_are_told_a_few_times_a_second():
    node = Node()
    said = [
        effect.message.degraded
        for at in range(100)
        for effect in (
            *node.core.degrade(f"it waits for {99 - at} tasks", at / 100),
            *(node.core.tick(at / 100) if (node.core.wakes_at or 9) <= at / 100 else ()),
        )
        if isinstance(effect, Send) and isinstance(effect.message, Heartbeat)
    ]
    assert said[0] == "it waits for 99 tasks"
    assert 1 < len(said) < MOST_BEATS
    assert node.core.wakes_at is not None
    [last] = node.core.tick(node.core.wakes_at)
    assert isinstance(last, Send)
    assert isinstance(last.message, Heartbeat)
    assert last.message.degraded == "it waits for 0 tasks"
    assert node.core.wakes_at > HEARTBEAT
