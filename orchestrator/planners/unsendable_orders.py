"""Orders that their node cannot be sent, being too large or lacking a secret: given up."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction

from nodes.callbacks import Unsendable
from orchestrator.lifecycle import NOT_BEGUN, Desired, StopCause
from orchestrator.planners.transitions import Changes, Outcome, execution_id, lock_executions


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
            and execution.observed in NOT_BEGUN
        ]
        if not waiting:
            return
        changes = Changes()
        for execution in waiting:
            why = _outcome(found[execution.id])
            cause = StopCause.UNDELIVERABLE
            changes.follow(execution, ["cancel"], reason=why.message, outcome=why, cause=cause)
        changes.write()


def _outcome(order: Unsendable) -> Outcome:
    if order.lacks:
        return Outcome(
            code="secret-missing",
            message=order.lacks,
            hint=order.hint,
            retryable=order.elsewhere,
        )
    return Outcome(
        code="order-too-large",
        message=f"its order takes {order.size} bytes, and a node can be sent {order.limit}",
        hint="Shorten the command, the environment or the configuration of the task.",
        retryable=False,
    )
