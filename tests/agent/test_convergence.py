"""Whatever networks and crashes do: started at most once, reported, and equal in the end."""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nodes.agent.core import Core
from nodes.agent.effects import Discard, Drop, Effect, Send, Start, Stop
from nodes.agent.facts import Exited, Fact, NeverStarted, NotStarted, Started, Vanished
from nodes.agent.ledger import Ledger
from nodes.agent.records import FINAL, Entry, Machine, Stage
from nodes.protocol import codec
from nodes.protocol.messages import (
    Ack,
    Desired,
    FromServer,
    Happened,
    Heartbeat,
    Hello,
    Order,
    Orders,
    Report,
    Reports,
    Task,
    Want,
    Welcome,
)
from nodes.protocol.resources import Resources
from nodes.protocol.session import digest

CAPACITY = Resources(cpu=300)
NAMES = [f"e{number}" for number in range(4)]
#: What may follow what, as the scheduler moves desired states.
FOLLOWS = {
    None: (Want.BID, Want.RUN, Want.STOP),
    Want.BID: (Want.RUN, Want.REJECT, Want.STOP),
    Want.RUN: (Want.STOP,),
    Want.REJECT: (),
    Want.STOP: (),
}


class Crash(Exception):
    """The agent dies here."""


class Tasks:
    """What really runs on the machine.  It outlives the agent."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running: set[str] = set()
        self.over: dict[str, Fact] = {}

    def start(self, entry: Entry) -> None:
        assert entry.execution not in self.begun, f"{entry.execution} was started twice"
        self.begun.append(entry.execution)
        self.running.add(entry.execution)

    def end(self, execution: str, fact: Fact) -> None:
        self.running.remove(execution)
        self.over[execution] = fact

    def account_for(self, execution: str) -> Fact:
        if execution in self.running:
            return Started(execution)
        return self.over.get(execution) or NeverStarted(execution)


class Control:
    """An orchestrator in miniature: what it wants, what it was told, one session."""

    def __init__(self) -> None:
        self.rev, self.epoch, self.seq = 0, 0, 0
        self.wants: dict[str, Order] = {}
        self.seen: dict[str, list[Report]] = {}
        self.acknowledged_rev = 0
        self.greeted = False
        #: A full set that was read, and is only sent later.
        self.read: Desired | None = None

    def order(self, name: str, want: Want) -> Orders:
        self.rev += 1
        task = Task("process", ("true",)) if want in (Want.BID, Want.RUN) else None
        order = Order(name, want, self.rev, task=task, resources=Resources(cpu=100))
        self.wants[name] = order
        return Orders(self.epoch, self.rev - 1, self.rev, (order,))

    def live(self) -> tuple[Order, ...]:
        return tuple(order for name, order in self.wants.items() if not self.final(name))

    def final(self, name: str) -> Report | None:
        return next((r for r in self.seen.get(name, ()) if r.happened in FINAL), None)

    def receive(self, message: object) -> list[FromServer]:
        match message:
            case Hello():
                self.epoch, self.seq, self.greeted = self.epoch + 1, 0, True
                orders = self.live()
                half = len(orders) // 2
                return [
                    Welcome(self.epoch, "n", self.rev, orders[:half], 10.0, True, more=True),
                    Desired(self.epoch, self.rev, orders[half:]),
                ]
            case Reports(epoch=epoch, seq=seq, order_rev=rev, items=items):
                assert epoch == self.epoch
                assert seq == self.seq + 1, "reports come in sequence"
                self.seq, self.acknowledged_rev = seq, rev
                for report in items:
                    self.seen.setdefault(report.execution, []).append(report)
                return [Ack(epoch, seq)]
        return []


class Agent(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.control, self.tasks, self.now = Control(), Tasks(), 0.0
        self.to_agent: deque[str] = deque()
        self.to_server: deque[str] = deque()
        self.linked = False
        self.boot()

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self.ledger.close()
            self.directory.cleanup()

    # --- the agent, as its runner drives it ------------------------------------------------------

    def boot(self) -> None:
        self.ledger = Ledger(Path(self.directory.name) / "ledger.db", self.now)
        machine = Machine("i", self.ledger.run, self.ledger.id, "b", CAPACITY, {}, {"process"})
        self.core = Core(machine, self.ledger.saved(), self.ledger.recall)
        self.linked = False
        effects: list[Effect] = []
        for entry in self.core.interrupted():
            effects += self.core.observe(self.tasks.account_for(entry.execution))
        self.carry_out(effects)

    def carry_out(self, effects: list[Effect], dies: str = "") -> None:
        try:
            if dies == "before the commit":
                raise Crash
            if self.core.changes.urgent or dies:
                self.ledger.commit(self.core.take_changes(), self.now)
            if dies == "after the commit":
                raise Crash
            for effect in effects:
                self.carry(effect)
                if dies == "after one effect":
                    raise Crash
            for frame in self.core.reports():
                self.to_server.append(codec.encode(frame))
            if dies:
                raise Crash
        except Crash:
            self.cut()
            self.ledger.close()
            self.boot()

    def carry(self, effect: Effect) -> None:
        match effect:
            case Start(entry=entry):
                self.tasks.start(entry)
            case Send(message=message):
                self.to_server.append(codec.encode(message))
            case Stop(execution=execution):
                assert execution in self.tasks.begun
            case Discard(execution=execution):
                assert execution not in self.tasks.running
            case Drop(reason=reason):
                raise AssertionError(f"the agent is unhappy with a faultless server: {reason}")

    # --- what can happen -------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), choice=st.integers(0, 5))
    def the_orchestrator_wants_something(self, name: str, choice: int) -> None:
        before = self.control.wants.get(name)
        follows = FOLLOWS[before.want if before else None]
        if not follows or self.control.final(name):
            return
        want = follows[choice % len(follows)]
        if before and want is not Want.STOP and not self.control.seen.get(name):
            return  # The scheduler approves and rejects bids that it knows of.
        orders = self.control.order(name, want)
        if self.control.greeted:
            self.to_agent.append(codec.encode(orders))

    @precondition(lambda self: self.control.greeted)
    @rule()
    def the_orchestrator_reads_the_full_set(self) -> None:
        control = self.control
        control.read = Desired(control.epoch, control.rev, control.live())

    @precondition(lambda self: self.control.greeted and self.control.read)
    @rule()
    def the_orchestrator_sends_the_full_set_it_has_read(self) -> None:
        assert self.control.read is not None
        self.to_agent.append(codec.encode(self.control.read))

    @precondition(lambda self: self.to_agent)
    @rule(
        count=st.integers(1, 5),
        dies=st.sampled_from(
            ["", "", "", "before the commit", "after the commit", "after one effect", "at the end"]
        ),
    )
    def messages_arrive(self, count: int, dies: str) -> None:
        effects: list[Effect] = []
        for _ in range(min(count, len(self.to_agent))):
            message = codec.decode_from_server(self.to_agent.popleft())
            effects += self.core.receive(message, self.now)
        self.carry_out(effects, dies)

    @precondition(lambda self: self.to_server)
    @rule()
    def the_orchestrator_listens(self) -> None:
        answers = self.control.receive(codec.decode_from_node(self.to_server.popleft()))
        self.to_agent.extend(codec.encode(answer) for answer in answers)

    @precondition(lambda self: self.tasks.running)
    @rule(status=st.sampled_from([0, 0, 1, -9]), dies=st.sampled_from(["", "", "after the commit"]))
    def a_task_ends(self, status: int, dies: str) -> None:
        execution = min(self.tasks.running)
        fact = Exited(execution, status, ran=1.0, stdout="x\n", stdout_size=2)
        self.tasks.end(execution, fact)
        self.carry_out(self.core.observe(Started(execution)) + self.core.observe(fact), dies)

    @precondition(lambda self: self.tasks.running)
    @rule()
    def a_task_turns_out_to_run(self) -> None:
        self.carry_out(self.core.observe(Started(min(self.tasks.running))))

    @precondition(lambda self: self.tasks.running)
    @rule(vanishes=st.booleans())
    def a_task_is_not_to_be_found(self, vanishes: bool) -> None:
        execution = min(self.tasks.running)
        fact = Vanished(execution) if vanishes else NotStarted(execution, "no such file")
        self.tasks.end(execution, fact)
        self.carry_out(self.core.observe(fact))

    @rule()
    def the_link_breaks(self) -> None:
        self.cut()

    @precondition(lambda self: not self.linked)
    @rule()
    def the_link_comes_up(self) -> None:
        self.linked = True
        self.carry_out(self.core.opened(self.now))

    @rule(seconds=st.floats(0.1, 12.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        effects = self.core.tick(self.now)
        if any(isinstance(effect, Drop) for effect in effects):
            self.cut()
        else:
            self.carry_out(effects)

    @rule()
    def the_agent_is_killed(self) -> None:
        self.cut()
        self.ledger.close()
        self.boot()

    def cut(self) -> None:
        self.linked = False
        self.to_agent.clear()
        self.to_server.clear()
        self.core.closed()
        self.control.greeted = False

    # --- what must hold --------------------------------------------------------------------------

    @invariant()
    def never_above_capacity(self) -> None:
        live = [entry.resources for entry in self.core.entries.values() if entry.live]
        assert self.core.used == sum(live, Resources())
        assert self.core.used.fits(CAPACITY)

    @invariant()
    def what_runs_is_known(self) -> None:
        held = {e.execution for e in self.core.entries.values() if e.told_to_run}
        assert self.tasks.running <= held

    def settle(self) -> None:
        """With a quiet network and time, everything is told and both ends agree."""
        self.cut()
        self.the_link_comes_up()
        for _ in range(200):
            while self.to_agent or self.to_server:
                if self.to_server:
                    self.the_orchestrator_listens()
                if self.to_agent:
                    self.messages_arrive(1, "")
            if not self.tasks.running:
                break
            self.a_task_ends(0, "")
        assert self.control.acknowledged_rev == self.control.rev == self.core.order_rev
        for name, order in self.control.wants.items():
            if order.want in (Want.RUN, Want.STOP):
                assert self.control.final(name), f"nothing final was ever said of {name}"
            if (final := self.control.final(name)) and final.happened is Happened.COMPLETE:
                assert self.tasks.begun.count(name) == 1
        held = {n for n, o in self.control.wants.items() if o.want is Want.BID}
        held -= {name for name in held if self.control.final(name)}
        assert {e.execution for e in self.core.entries.values()} == held
        assert all(e.stage is Stage.HELD for e in self.core.entries.values())
        self.now += 10.0
        beats = [e.message for e in self.core.tick(self.now) if isinstance(e, Send)]
        assert isinstance(beat := beats[0], Heartbeat)
        assert beat.digest == digest((name, False) for name in held)
        for name, reports in self.control.seen.items():
            finals = {(r.happened, r.exit_code) for r in reports if r.happened in FINAL}
            assert len(finals) <= 1, f"{name} ended in different ways: {finals}"


Agent.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestWhateverHappens = Agent.TestCase
