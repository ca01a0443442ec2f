"""Everything the agent decides, without doing any of it.  Pure.

Messages, facts and time go in; effects come out.  Whoever runs the core keeps one promise:
after a turn it commits ``take_changes()`` before it carries out any effect of that turn and
before it sends ``reports()``.  From that follows: an execution is started at most once, ever;
what was acknowledged is known after a crash; every final report arrives.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from ..protocol.messages import (
    Ack,
    Close,
    Desired,
    FromServer,
    Happened,
    Order,
    Orders,
    Pulse,
    Report,
    Reports,
    Unwatch,
    Want,
    Watch,
    Welcome,
)
from ..protocol.resources import Resources
from . import outcomes
from .bidding import Offer, is_degraded, refusal
from .effects import Discard, Drop, Effect, Follow, Send, Start, Stop, Unfollow
from .facts import Exited, Fact, NeverStarted, NotStarted, Started, Vanished
from .outbox import Outbox
from .records import FINAL, Changes, Entry, Machine, Recall, Saved, Stage, entry_of
from .session import APART, SHORTEST, Session, heartbeat, hello


class Core:
    """The agent's state, and the only thing that changes it."""

    def __init__(self, machine: Machine, saved: Saved, recall: Recall) -> None:
        self.machine = machine
        self.order_rev = saved.order_rev
        self.entries: dict[str, Entry] = {}
        self.used = Resources()
        self.outbox = Outbox(saved.reports, saved.numbered)
        self.changes = Changes()
        #: Why the node takes no new work; see ``degrade``.
        self.degraded = ""
        self._recall = recall
        self._session: Session | None = None
        for entry in saved.entries:
            self._put(entry)
        self.changes = Changes()
        #: Whether the machine was restarted since all was accounted for, or may have been.  That
        #: it was is forgotten in one commit with what the drivers make of it, not before.
        self.rebooted = saved.boot != machine.boot
        if self.rebooted:
            self.changes.boot = machine.boot

    # --- the link ------------------------------------------------------------------------------

    def opened(self, now: float, *, fenced: bool = False) -> list[Effect]:
        """A link is up: say who we are, and whether the last one was *fenced*."""
        self._session = Session(heard_at=now, degraded=self.degraded)
        said = hello(
            self.machine,
            self.entries.values(),
            self.order_rev,
            fenced=fenced,
            degraded=self.degraded,
        )
        return [Send(said)]

    def closed(self) -> None:
        """The link is gone.  Tasks go on."""
        self._session = None

    def _drop(self, code: int, reason: str) -> list[Effect]:
        """Give up the link, once: until the next is up nothing is heard and nothing is said."""
        self._session = None
        return [Drop(code, reason)]

    @property
    def epoch(self) -> int | None:
        """The epoch of the session, once the orchestrator has welcomed us."""
        return self._session.epoch if self._session else None

    @property
    def wakes_at(self) -> float | None:
        """When ``tick`` has something to do."""
        if (session := self._session) is None:
            return None
        return min(session.gives_up_at, session.beat_at or session.gives_up_at)

    def tick(self, now: float, load: float = 0.0) -> list[Effect]:
        """Do what time alone demands: a heartbeat, or giving up a silent link."""
        if (session := self._session) is None:
            return []
        if now >= session.gives_up_at:
            silence = f"nothing was heard for {now - session.heard_at:.0f} s"
            return self._drop(Close.SHUTTING_DOWN, silence)
        if session.epoch is None or session.beat_at is None or now < session.beat_at:
            return []
        session.load = load
        return self._beat(session, now)

    def degrade(self, why: str, now: float) -> list[Effect]:
        """Take no new work from now on, because of *why*; or take it again, when that is empty."""
        if (why := why[:4096]) == self.degraded:
            return []
        self.degraded = why
        if (session := self._session) is None or session.epoch is None:
            return []
        if now < (at := session.beaten_at + APART):  # Too many end the session.
            session.beat_at = min(session.beat_at or at, at)
            return []
        return self._beat(session, now)

    def _beat(self, session: Session, now: float) -> list[Effect]:
        session.beaten_at, session.beat_at = now, now + session.heartbeat
        return [Send(heartbeat(session, self.entries.values(), self.order_rev, self.degraded))]

    def receive(self, message: FromServer, now: float) -> list[Effect]:
        """Take in one message of the orchestrator."""
        if (session := self._session) is None:
            return []
        session.heard_at = now
        if isinstance(message, Welcome):
            return self._welcomed(session, message, now)
        if session.epoch is None:
            early = type(message).__name__.lower()
            return self._drop(Close.OUT_OF_SEQUENCE, f"{early} came before the welcome")
        if message.epoch != session.epoch:
            return []
        match message:
            case Desired():
                return self._gather(session, message.items, message.order_rev, message.more)
            case Orders():
                return self._ordered(session, message)
            case Ack(seq=seq):
                return self._acknowledged(seq)
            case Watch():
                return [Follow(message)]
            case Unwatch():
                return [Unfollow(message)]
            case Pulse():
                return []

    # --- what the runner takes after a turn ------------------------------------------------------

    def take_changes(self) -> Changes:
        """What must be committed before the effects of this turn; the core forgets it."""
        changes, self.changes = self.changes, Changes()
        return changes

    def reports(self) -> list[Reports]:
        """The reports that may go out now.  Everything in them must have been committed."""
        session = self._session
        if session is None or session.epoch is None or session.gathering is not None:
            return []
        return self.outbox.frames(session.epoch, self.order_rev)

    def is_live(self, execution: str) -> bool:
        """Whether the execution may still write to its logs."""
        entry = self.entries.get(execution)
        return entry is not None and entry.live

    # --- what drivers tell -----------------------------------------------------------------------

    def interrupted(self) -> list[Entry]:
        """After a restart: the executions whose drivers must say what became of them."""
        return [entry for entry in self.entries.values() if entry.told_to_run]

    def observe(self, fact: Fact) -> list[Effect]:
        """Take in what a driver tells.  A fact told twice has no second effect."""
        entry = self.entries.get(fact.execution)
        if entry is None or entry.stage is Stage.HELD:
            self._never_begin(fact)
        if entry is None or not entry.told_to_run:
            return []
        match fact:
            case Started():
                return self._started(entry, fact.handle)
            case NeverStarted() if entry.stage is not Stage.STARTING:
                why = "the task ran, and nothing of it is left to tell how it ended"
                self._end(entry, outcomes.unknown(Vanished(entry.execution, why)))
            case NeverStarted() if entry.stopping:
                self._end(entry, outcomes.cancelled(entry.execution, "it had not begun"))
            case NeverStarted():
                return [Start(entry)]
            case Exited():
                if entry.stage is Stage.STARTING:
                    self._report(Report(entry.execution, Happened.START))
                self._end(entry, outcomes.ended(entry, fact))
            case NotStarted():
                self._end(entry, outcomes.not_started(fact))
            case Vanished():
                self._end(entry, outcomes.unknown(fact))
        return []

    def _never_begin(self, fact: Fact) -> None:
        """Remember what has ended here and an earlier ledger knew: an order may still name it."""
        match fact:
            case Exited():
                final = outcomes.ended(Entry(fact.execution, Stage.RUNNING), fact)
            case Vanished():
                final = outcomes.unknown(fact)
            case _:
                return
        if not self._known_before(fact.execution)[0]:
            self._bury(fact.execution, outcomes.without_tails(final))
            self.changes.urgent = True

    def _started(self, entry: Entry, handle: str) -> list[Effect]:
        if entry.stage is Stage.STARTING:
            self._report(Report(entry.execution, Happened.START))
        self._put(replace(entry, stage=Stage.RUNNING, handle=handle, secrets=None))
        # Asked before a crash, and perhaps never heard: ask again, it does no harm.
        return [Stop(entry.execution, entry.driver)] if entry.stopping else []

    # --- orders ----------------------------------------------------------------------------------

    def _welcomed(self, session: Session, welcome: Welcome, now: float) -> list[Effect]:
        if session.epoch is not None:
            return self._drop(Close.OUT_OF_SEQUENCE, "a second welcome on one link")
        session.epoch = welcome.epoch
        session.heartbeat = max(welcome.heartbeat, SHORTEST)
        changed = session.degraded != self.degraded
        session.beat_at = now if changed else now + session.heartbeat
        self.outbox.reopen()
        self._advance(welcome.order_rev)  # Maybe backwards: the full set follows.
        return self._gather(session, welcome.desired, welcome.order_rev, welcome.more)

    def _gather(
        self, session: Session, items: tuple[Order, ...], order_rev: int, more: bool
    ) -> list[Effect]:
        gathered = (session.gathering or []) + list(items)
        if more:
            session.gathering = gathered
            return []
        session.gathering = None
        self._advance(max(order_rev, self.order_rev))
        self.outbox.tell_again()
        return self._apply(gathered)

    def _ordered(self, session: Session, orders: Orders) -> list[Effect]:
        if session.gathering is not None:
            return self._drop(Close.OUT_OF_SEQUENCE, "orders came before the desired set was whole")
        if orders.order_rev <= self.order_rev:
            return []
        if orders.after != self.order_rev:
            gap = f"orders after {orders.after} came, {self.order_rev} was the last known"
            return self._drop(Close.OUT_OF_SEQUENCE, gap)
        self._advance(orders.order_rev)
        return self._apply(orders.items)

    def _apply(self, orders: list[Order] | tuple[Order, ...]) -> list[Effect]:
        # Not only when the revision rises: a full set in several frames raises it with the first,
        # and what a later one begins must be as durable.
        self.changes.urgent = self.changes.urgent or bool(orders)
        effects: list[Effect] = []
        for order in orders:
            effects += _HANDLERS[order.want](self, order)
        return effects

    def _bid(self, order: Order) -> list[Effect]:
        if order.execution in self.entries or self._was_here(order):
            return []
        if self._admits(order):
            self._put(entry_of(order, Stage.HELD))
            self._report(Report(order.execution, Happened.BID))
        return []

    def _run(self, order: Order) -> list[Effect]:
        entry = self.entries.get(order.execution)
        if entry is None:
            if self._was_here(order) or not self._admits(order):
                return []
            entry = entry_of(order, Stage.STARTING)
        elif entry.stage is Stage.HELD:
            if (why := is_degraded(order, self._offer())) is not None:
                self._end(entry, outcomes.declined(order.execution, why))
                return []
            held, entry = entry, entry_of(order, Stage.STARTING)
            if order.task is None:
                entry = replace(entry, task=held.task, driver=held.driver)
            entry = replace(entry, resources=held.resources)
        else:
            return []
        self._put(entry)
        return [Start(entry)]

    def _reject(self, order: Order) -> list[Effect]:
        entry = self.entries.get(order.execution)
        if entry is None:
            if not self._known_before(order.execution)[0]:
                self._bury(order.execution, None)
        elif entry.stage is Stage.HELD:
            self._bury(order.execution, None)
        elif entry.told_to_run:
            return self._stop(order)
        return []

    def _stop(self, order: Order) -> list[Effect]:
        entry = self.entries.get(order.execution)
        if entry is None:
            if not self._was_here(order):
                ended = Entry(order.execution, Stage.ENDED)
                self._end(ended, outcomes.cancelled(order.execution, "it had not begun"))
        elif entry.stage is Stage.HELD:
            self._end(entry, outcomes.cancelled(order.execution, "it had not begun"))
        elif entry.told_to_run and not entry.stopping:
            self._put(replace(entry, stopping=True))
            return [Stop(order.execution, entry.driver)]
        return []

    def _admits(self, order: Order) -> bool:
        """Whether we take it; if not, the refusal is already on its way."""
        if (why := refusal(order, self._offer())) is None:
            return True
        ended = Entry(order.execution, Stage.ENDED)
        self._end(ended, outcomes.declined(order.execution, why))
        return False

    def _offer(self) -> Offer:
        return Offer(self.machine.capacity, self.used, self.machine.drivers, self.degraded)

    def _was_here(self, order: Order) -> bool:
        """Whether it is over here already; if so, how it ended is told again, never begun again."""
        known, final = self._known_before(order.execution)
        if known:
            again = final or outcomes.cancelled(order.execution, "its bid was rejected before")
            self._report(again)
            self.changes.urgent = True
        return known

    # --- memory ----------------------------------------------------------------------------------

    def _acknowledged(self, seq: int) -> list[Effect]:
        covered = self.outbox.acknowledge(seq)
        if covered is None:
            return self._drop(Close.OUT_OF_SEQUENCE, f"reports up to {seq} were never sent")
        effects: list[Effect] = []
        for number, report in covered:
            self.changes.acked = number
            if report.happened not in FINAL:
                continue
            entry = self.entries.get(report.execution)
            if entry is not None and entry.stage is Stage.ENDED:
                self._bury(entry.execution, outcomes.without_tails(report))
                if entry.driver:
                    effects.append(Discard(entry.execution, entry.driver))
        return effects

    def _known_before(self, execution: str) -> tuple[bool, Report | None]:
        if execution in self.changes.tombstones:
            return True, self.changes.tombstones[execution]
        return self._recall(execution)

    def _advance(self, order_rev: int) -> None:
        if order_rev != self.order_rev:
            self.order_rev = self.changes.order_rev = order_rev
            self.changes.urgent = True

    def _report(self, report: Report) -> None:
        self.changes.reports.append((self.outbox.add(report), report))

    def _end(self, entry: Entry, report: Report) -> None:
        driver = entry.driver if entry.told_to_run else ""
        self._put(Entry(entry.execution, Stage.ENDED, driver=driver))
        self._report(report)
        self.changes.urgent = True

    def _put(self, entry: Entry) -> None:
        before = self.entries.get(entry.execution)
        self._count(before, entry)
        self.entries[entry.execution] = self.changes.entries[entry.execution] = entry

    def _bury(self, execution: str, final: Report | None) -> None:
        self._count(self.entries.pop(execution, None), None)
        self.changes.entries[execution] = None
        self.changes.tombstones[execution] = final

    def _count(self, before: Entry | None, after: Entry | None) -> None:
        if before is not None and before.live:
            self.used -= before.resources
        if after is not None and after.live:
            self.used += after.resources


_HANDLERS: dict[Want, Callable[[Core, Order], list[Effect]]] = {
    Want.BID: Core._bid,
    Want.RUN: Core._run,
    Want.REJECT: Core._reject,
    Want.STOP: Core._stop,
}
