"""The EvaluationBroker: the queue of jobs that wait for evaluation.

Whoever changes something calls ``enqueue`` in the same transaction.  A worker calls ``lease``,
evaluates, and has the plan's own transaction call ``hold`` first and ``ack`` last; what it could
not evaluate it gives back with ``nack``.  Time and dead workers are taken care of by ``fold``,
``sweep`` and ``give_back``.  See ``docs/broker.md``.
"""

from .ack import Result, ack
from .blocked import lock_blocking
from .enqueue import capacity_freed, enqueue
from .fold import fold
from .leases import Lease, give_back, hold, lease, leaseholders, nack, renew, sweep
from .operator import drop_dead, evaluate_now, pause, resume, retry_dead
from .statistics import BrokerStats, QueueState, in_state, silent_leaseholders, stalled_for, stats
from .unblock import unblock, unblock_overlooked

__all__ = [
    "BrokerStats",
    "Lease",
    "QueueState",
    "Result",
    "ack",
    "capacity_freed",
    "drop_dead",
    "enqueue",
    "evaluate_now",
    "fold",
    "give_back",
    "hold",
    "in_state",
    "lease",
    "leaseholders",
    "lock_blocking",
    "nack",
    "pause",
    "renew",
    "resume",
    "retry_dead",
    "silent_leaseholders",
    "stalled_for",
    "stats",
    "sweep",
    "unblock",
    "unblock_overlooked",
]
