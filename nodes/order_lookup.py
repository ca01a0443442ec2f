"""The orders of nodes, asked of the orchestrator and encoded: sync, for the threads of sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import structlog

from .callbacks import Callbacks, NodeOrders
from .intake import PASSING
from .orders import EncodedOrder, encoded
from .protocol.messages import Hello, Order

log = structlog.get_logger(__name__)


class OrderLookup:
    """Orders as they are sent; what no message has room for is handed up, and left out."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks

    def desired(self, node: UUID, hello: Hello, epoch: int) -> tuple[int, list[EncodedOrder]]:
        """The full set of *node*, and the revision that it has."""
        desired = self._callbacks.desired(node, hello, epoch)
        return desired.order_rev, self._sendable(node, desired.orders)

    def pending(self, sent: Mapping[UUID, int]) -> list[tuple[UUID, int, list[EncodedOrder]]]:
        """What each node was not *sent* yet, by the revisions that they were sent."""
        try:
            found = self._callbacks.orders(sent)
        except PASSING:
            raise
        except Exception:
            log.exception("orders are asked for node by node")
            found = [it for node, rev in sent.items() for it in self._pending_of(node, rev)]
        return [(it.node, it.order_rev, self._sendable(it.node, it.orders)) for it in found]

    def _pending_of(self, node: UUID, revision: int) -> Sequence[NodeOrders]:
        try:
            return self._callbacks.orders({node: revision})
        except PASSING:
            raise
        except Exception:
            log.exception("a node cannot be told its orders", node=str(node))
            return ()

    def _sendable(self, node: UUID, orders: Sequence[Order]) -> list[EncodedOrder]:
        sendable, unsendable = encoded(orders)
        if unsendable:
            try:
                self._callbacks.cannot_send(node, unsendable)
            except Exception:
                # They are found again at the next look, and must not keep the others from going.
                log.exception("orders that cannot be sent wait to be given up", node=str(node))
        return sendable
