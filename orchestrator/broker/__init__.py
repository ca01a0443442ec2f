"""The EvaluationBroker: the queue of jobs that wait for evaluation.

Whoever changes something calls ``enqueue`` in the same transaction.  A worker calls ``lease``,
evaluates, and has the plan's own transaction call ``hold`` first and ``ack`` last; what it could
not evaluate it gives back with ``nack``.  Time and dead workers are taken care of by ``catch_up``,
``sweep`` and ``give_back``.  See ``docs/broker.md``.
"""

from .ack import Result, ack
from .blocked import Waits, lock_blocking
from .due import Work, catch_up, work
from .enqueue import capacity_freed, enqueue
from .leases import (
    Lease,
    forget_orphans,
    give_back,
    hold,
    lease,
    leaseholders,
    nack,
    renew,
    sweep,
)
from .operator import drop_dead, evaluate_now, pause, resume, retry_dead
from .standing import RELATED, Standing, known, standing
from .statistics import (
    BrokerStats,
    QueueState,
    count,
    in_state,
    silent_leaseholders,
    stalled_for,
    stats,
)
from .unblock import forget_classes, unblock, unblock_overlooked

__all__ = [
    "RELATED",
    "BrokerStats",
    "Lease",
    "QueueState",
    "Result",
    "Standing",
    "Waits",
    "Work",
    "ack",
    "capacity_freed",
    "catch_up",
    "count",
    "drop_dead",
    "enqueue",
    "evaluate_now",
    "forget_classes",
    "forget_orphans",
    "give_back",
    "hold",
    "in_state",
    "known",
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
    "standing",
    "stats",
    "sweep",
    "unblock",
    "unblock_overlooked",
    "work",
]
