"""Which bids are accepted, and which of several executions has a slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.lifecycle import Desired, Observed

from .plan import Stop
from .world import ExecutionView

#: How far an execution has come; of two for one slot the further one stays.
_ORDER = (
    Observed.NEW,
    Observed.ASK_FOR_BID,
    Observed.ASK_FOR_BID_ACCEPTED,
    Observed.BID_ACCEPTED,
    Observed.PREPARING,
    Observed.RUNNING,
    Observed.PUBLISHING,
)
_FAR = {observed: i for i, observed in enumerate(_ORDER)}

#: Points of the nodes that these executions bid from, in the same order.
BidScorer = Callable[[Sequence[ExecutionView]], Sequence[float]]


def accept_bids(
    live: Sequence[ExecutionView], ask: int, score_bids: BidScorer
) -> tuple[list[ExecutionView], list[Stop], tuple[str, ...]]:
    """Which executions stay when each slot may run one, which must go, and whose bids are taken."""
    slots: dict[int, list[ExecutionView]] = {}
    for execution in live:
        slots.setdefault(execution.slot, []).append(execution)
    keep: list[ExecutionView] = []
    stop: list[Stop] = []
    approve: list[str] = []
    for rivals in slots.values():
        if len(rivals) == 1:
            keep += rivals
            if _bids(rivals[0]):
                approve.append(rivals[0].id)
            continue
        approved = [it for it in rivals if it.desired is Desired.RUNNING]
        bids = [it for it in rivals if _bids(it)]
        if approved:
            best = min(approved, key=lambda it: (-_FAR[it.observed], it.created_at, it.id))
            reason = "another execution has its slot"
        elif bids:
            best = _best_bid(bids, score_bids)
            approve.append(best.id)
            reason = "another bid was taken"
        else:
            rivals.sort(key=lambda it: (-_FAR[it.observed], it.created_at, it.id))
            keep += rivals[:ask]
            stop += [Stop(it.id, "more nodes were asked than the job says") for it in rivals[ask:]]
            continue
        keep.append(best)
        stop += [Stop(it.id, reason) for it in rivals if it is not best]
    return keep, stop, tuple(approve)


def _bids(execution: ExecutionView) -> bool:
    return (
        execution.desired is Desired.PENDING and execution.observed is Observed.ASK_FOR_BID_ACCEPTED
    )


def _best_bid(bids: Sequence[ExecutionView], score_bids: BidScorer) -> ExecutionView:
    points = score_bids(bids)
    ranked = sorted(
        zip(points, bids, strict=True), key=lambda it: (-it[0], it[1].created_at, it[1].id)
    )
    return ranked[0][1]
