"""State machines as tables, and the states of a node.

Everything that needs to know a state reads it from a table: the database constraints, the
trigger that refuses illegal moves, the admin's filters, the badges and the manual's diagrams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Generic, TypeVar

S = TypeVar("S", bound=StrEnum)


class IllegalTransition(Exception):
    """This event cannot happen in this state."""

    def __init__(self, state: str, event: str) -> None:
        super().__init__(f"{event!r} cannot happen in state {str(state)!r}")
        self.state, self.event = state, event


@dataclass(frozen=True)
class Lifecycle(Generic[S]):
    """A state machine written as ``{state: {event: next state}}``."""

    initial: S
    table: Mapping[S, Mapping[str, S]]

    @property
    def states(self) -> tuple[S, ...]:
        return tuple(self.table)

    @cached_property
    def terminal(self) -> frozenset[S]:
        """The states that are never left again."""
        return frozenset(state for state, events in self.table.items() if not events)

    @cached_property
    def live(self) -> frozenset[S]:
        return frozenset(self.table) - self.terminal

    def after(self, state: S, event: str) -> S:
        """The state that *event* leads to; raises IllegalTransition."""
        try:
            return self.table[state][event]
        except KeyError:
            raise IllegalTransition(state, event) from None

    def sources(self, event: str) -> frozenset[S]:
        """The states *event* may happen in: the WHERE of a conditional update."""
        return frozenset(state for state, events in self.table.items() if event in events)

    def edges(self) -> Iterator[tuple[S, str, S]]:
        for state, events in self.table.items():
            for event, target in events.items():
                yield state, event, target

    def mermaid(self) -> str:
        """The table as a state diagram for the manual."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.initial}"]
        lines += [f"    {state} --> {target}: {event}" for state, event, target in self.edges()]
        lines += [f"    {state} --> [*]" for state in self.states if state in self.terminal]
        return "\n".join(lines)


class Approval(StrEnum):
    """Whether an operator lets a node take part."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"


class Connection(StrEnum):
    """Whether a node is heard of."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    LOST = "lost"


APPROVAL: Lifecycle[Approval] = Lifecycle(
    initial=Approval.PENDING,
    table={
        Approval.PENDING: {"approve": Approval.APPROVED, "reject": Approval.REJECTED},
        Approval.APPROVED: {"reject": Approval.REJECTED},
        Approval.REJECTED: {},  # Its credentials ended; the machine may join anew.
    },
)

CONNECTION: Lifecycle[Connection] = Lifecycle(
    initial=Connection.DISCONNECTED,
    table={
        Connection.DISCONNECTED: {"greet": Connection.CONNECTED, "give_up": Connection.LOST},
        Connection.CONNECTED: {"silence": Connection.DISCONNECTED},
        Connection.LOST: {"greet": Connection.CONNECTED},
    },
)
