"""Orders that are too large to be sent to their node: their executions are given up."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction

from nodes.callbacks import Unsendable
from orchestrator.lifecycle import Desired, Observed
from orchestrator.planners.transitions import Changes, Outcome, execution_id, lock_executions

_NOT_BEGUN = frozenset({Observed.NEW, Observed.ASK_FOR_BID, Observed.ASK_FOR_BID_ACCEPTED})


def cannot_send(node: UUID, orders: Sequence[Unsendable], /) -> None:
    """Cancel the executions of these orders for good; see ``nodes.callbacks.CannotSend``.

    Not those that may have begun: they go on without an order.
    """
    found = {key: it for it in orders if (key := execution_id(it.execution)) is not None}
    with transaction.atomic(durable=True):
        waiting = [
            execution
            for execution in lock_executions(found).values()
            if execution.node == node
            and execution.desired is not Desired.STOPPED
            and execution.observed in _NOT_BEGUN
        ]
        if not waiting:
            return
        changes = Changes()
        for execution in waiting:
            why = _too_large(found[execution.id])
            changes.follow(execution, ["cancel"], reason=why.message, outcome=why)
        changes.write()


def _too_large(order: Unsendable) -> Outcome:
    return Outcome(
        code="order-too-large",
        message=f"its order takes {order.size} bytes, and a node can be sent {order.limit}",
        hint="Shorten the command, the environment or the configuration of the task.",
        retryable=False,
    )
