"""What the nodes' end hands upwards, and the functions it is given to do so.

``nodes`` imports nothing of the orchestrator.  The root hands ``Callbacks`` to the consumer;
everything that a node says, and everything that it must be told, passes through it in batches.
The functions are sync and are called in a thread of their own, outside any transaction; only
``record`` is called within one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from .protocol.messages import Hello, Order, Report, Want


@dataclass(frozen=True)
class Inbound:
    """One Reports frame of one node.

    ``told`` is what this session has sent and the frame's ``order_rev`` acknowledges: each
    execution with the newest of its orders that the node has durably taken.  The frame's effects
    are that ``told``, then ``reports``, in order.
    """

    node: UUID
    epoch: int
    seq: int
    order_rev: int
    told: tuple[tuple[str, Want], ...]
    reports: tuple[Report, ...]


class Verdict(StrEnum):
    """What became of one Inbound."""

    ACCEPTED = "accepted"  # its effects are committed: acknowledge it
    REPEATED = "repeated"  # they were committed before: acknowledge it again
    LATER = "later"  # they could not be written in time: close with 4503, it will be said again
    FENCED = "fenced"  # a newer session of this node exists: close with 4409
    OUT_OF_SEQUENCE = "out_of_sequence"  # a frame is missing before it: close with 4416
    REFUSED = "refused"  # nobody can write them: close with 4403


@dataclass(frozen=True)
class Unsendable:
    """An order that takes more bytes than a message to a node may have, or lacks something.

    What it *lacks* is a sentence, *hint* the cure; *elsewhere*: another node could be sent it.
    """

    execution: str
    size: int = 0
    limit: int = 0
    lacks: str = ""
    hint: str = ""
    elsewhere: bool = False


@dataclass(frozen=True)
class NodeOrders:
    """What one connected node must be told next, by rising revision.

    The list is complete up to ``order_rev``: no order with a revision at or below it is missing.
    There may be more above it.  Those that are *unsendable* are not among them.
    """

    node: UUID
    order_rev: int
    orders: tuple[Order, ...]
    unsendable: tuple[Unsendable, ...] = ()


@dataclass(frozen=True)
class DesiredSet:
    """Everything that one node should hold, and STOP for what it holds and must give up."""

    order_rev: int
    orders: tuple[Order, ...]
    unsendable: tuple[Unsendable, ...] = ()


class Receive(Protocol):
    def __call__(self, batch: Sequence[Inbound], /) -> Sequence[Verdict]:
        """Apply the whole batch in one transaction, and say what became of each, in order.

        Begins with ``membership.fence(batch)``; what is not ACCEPTED there has no effect.
        """


class PendingOrders(Protocol):
    def __call__(self, nodes: Mapping[UUID, int], /) -> Sequence[NodeOrders]:
        """For each of these nodes, orders above the given revision that it was not yet told.

        A node with nothing new is left out.  At most BATCH orders a node are given, and a bounded
        number in all: who got BATCH or more in one answer asks again.
        """


class Desired(Protocol):
    def __call__(self, node: UUID, hello: Hello, epoch: int, /) -> DesiredSet:
        """The full desired set for a node that has just said *hello* and been given *epoch*.

        Also writes down what *hello* proves: that the node holds what it names and, unless that is
        partial, nothing else.
        Raises Fenced, and writes nothing, when the node has a newer session.
        """


class Reconnect(Protocol):
    def __call__(self, sessions: Mapping[UUID, int], /) -> None:
        """These sessions, each node with its epoch, are heard of again after a silence."""


class Degraded(Protocol):
    def __call__(self, said: Mapping[UUID, tuple[int, str]], /) -> None:
        """These sessions, each node with its epoch, say anew why they take no work; or "" again."""


class CannotSend(Protocol):
    def __call__(self, node: UUID, orders: Sequence[Unsendable], /) -> None:
        """Give up the executions whose orders *node* can never be sent; repeating it is safe."""


class Record(Protocol):
    def __call__(self, node: UUID, what: str, message: str, /) -> None:
        """Append to the journal, in the caller's transaction, what befell *node*: a sentence."""


@dataclass(frozen=True)
class Callbacks:
    """The calls that go up, handed over at the root."""

    receive: Receive
    orders: PendingOrders
    desired: Desired
    reconnect: Reconnect
    degraded: Degraded
    cannot_send: CannotSend
    record: Record
