"""The orders of nodes, asked of the orchestrator and encoded: sync, for the threads of sessions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from uuid import UUID

import structlog

from .callbacks import Callbacks, DesiredSet, NodeOrders, Unsendable
from .intake import PASSING
from .orders import EncodedOrder, encoded
from .protocol.messages import Hello

log = structlog.get_logger(__name__)

#: Seconds until what could not be given up is tried again: it may wait for a lock, and all with it.
AGAIN = 5.0


class OrderLookup:
    """Orders as they are sent; what no message has room for is handed up, and left out."""

    def __init__(self, callbacks: Callbacks, again: float = AGAIN) -> None:
        self._callbacks, self._again = callbacks, again
        #: By execution what could not be given up: no look finds it again, as what follows is sent.
        self._left: dict[str, tuple[UUID, Unsendable]] = {}
        self._again_at = 0.0

    def desired(self, node: UUID, hello: Hello, epoch: int) -> tuple[int, list[EncodedOrder]]:
        """The full set of *node*, and the revision that it has."""
        desired = self._callbacks.desired(node, hello, epoch)
        return desired.order_rev, self._sendable(node, desired)

    def pending(self, sent: Mapping[UUID, int]) -> list[tuple[UUID, int, list[EncodedOrder]]]:
        """What each node was not *sent* yet, by the revisions that they were sent."""
        if self._left and time.monotonic() >= self._again_at:
            for execution in list(self._left):
                node, unsendable = self._left.pop(execution)
                self._give_up(node, [unsendable])
        try:
            found = self._callbacks.orders(sent)
        except PASSING:
            raise
        except Exception:
            log.exception("orders are asked for node by node")
            found = [it for node, rev in sent.items() for it in self._pending_of(node, rev)]
        return [(it.node, it.order_rev, self._sendable(it.node, it)) for it in found]

    def _pending_of(self, node: UUID, revision: int) -> Sequence[NodeOrders]:
        try:
            return self._callbacks.orders({node: revision})
        except PASSING:
            raise
        except Exception:
            log.exception("a node cannot be told its orders", node=str(node))
            return ()

    def _sendable(self, node: UUID, found: NodeOrders | DesiredSet) -> list[EncodedOrder]:
        sendable, unsendable = encoded(found.orders)
        if unsendable or found.unsendable:
            self._give_up(node, [*found.unsendable, *unsendable])
        return sendable

    def _give_up(self, node: UUID, unsendable: Sequence[Unsendable]) -> None:
        """Hand them up; if that fails, later, as they must not keep the others from going."""
        try:
            self._callbacks.cannot_send(node, unsendable)
        except Exception:
            log.exception("orders that cannot be sent wait to be given up", node=str(node))
            self._left.update({it.execution: (node, it) for it in unsendable})
            self._again_at = time.monotonic() + self._again
