"""The only code that moves executions between states.

Whoever moves some locks them first (`lock_executions`, then `lock_nodes`: the order of
``nodes.locks``).  What follows from what nodes say is gathered in `Changes`, which writes the
observed lane with everything that hangs on it; the StateUpdater writes the desired lane by
`desire`, and what it places by `reserve`.
"""

from .changes import Changes
from .lanes import Observation, Outcome, Wish, desire, observe
from .locking import (
    LockedExecution,
    LockedNode,
    execution_id,
    lock_executions,
    lock_nodes,
)
from .reservations import reserve

__all__ = [
    "Changes",
    "LockedExecution",
    "LockedNode",
    "Observation",
    "Outcome",
    "Wish",
    "desire",
    "execution_id",
    "lock_executions",
    "lock_nodes",
    "observe",
    "reserve",
]
