"""Which bids are accepted, and which of several executions has a slot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain

import numpy as np

from orchestrator.lifecycle import Desired, Observed, StopCause

from .plan import Stop
from .ranking import Question, totals
from .world import ExecutionView, Room, World

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


def accept_bids(
    live: Sequence[ExecutionView], ask: int, score_bids: BidScorer
) -> tuple[list[ExecutionView], list[Stop], tuple[str, ...]]:
    """Which executions stay when each slot may run one, which must go, and whose bids are taken."""
    keep: list[ExecutionView] = []
    stop: list[Stop] = []
    undecided: list[list[ExecutionView]] = []
    for rivals in _by_slot(live).values():
        if len(rivals) == 1 and not _bids(rivals[0]):
            keep += rivals
        elif approved := [it for it in rivals if it.desired is Desired.RUNNING]:
            best = min(approved, key=_furthest)
            keep.append(best)
            stop += _others(rivals, best, "another execution has its slot")
        elif any(map(_bids, rivals)):
            undecided.append(rivals)
        else:
            rivals.sort(key=_furthest)
            keep += rivals[:ask]
            stop += _surplus(rivals[ask:], "more nodes were asked than the job says")
    bids = [[it for it in rivals if _bids(it)] for rivals in undecided]
    taken = score_bids.best(keep, bids)
    for rivals, best in zip(undecided, taken, strict=True):
        stop += _others(rivals, best, "another bid was taken")
    return [*keep, *taken], stop, tuple(it.id for it in taken)


@dataclass(frozen=True, slots=True)
class BidScorer:
    """Whose bid is best, where each node is judged as placing judges it.

    ``question`` asks about one more execution of the job, given those that it has.
    """

    room: Room
    question: Callable[[Sequence[ExecutionView]], Question]

    def best(
        self, keep: Sequence[ExecutionView], slots: Sequence[Sequence[ExecutionView]]
    ) -> list[ExecutionView]:
        """The best of each slot's bids; what was taken for one counts for the next."""
        if all(len(bids) == 1 for bids in slots):
            return [bids[0] for bids in slots]
        asked = self.question([*keep, *chain.from_iterable(slots)])
        used = dict(asked.used)
        asked = replace(asked, used=used, reserved=True)
        taken = []
        for bids in slots:
            rows = [self.room.nodes.index[it.node] for it in bids]
            for row in rows:
                used[row] -= 1 / len(rows)
            points = totals(self.room, asked, np.array(rows)).tolist()
            order = zip((-one for one in points), map(_furthest, bids), rows, bids, strict=True)
            *_, row, best = min(order, key=lambda it: it[:2])
            used[row] += 1
            taken.append(best)
        return taken


def used_rows(world: World, live: Sequence[ExecutionView]) -> dict[int, float]:
    """How many executions each row has of these; those for one slot are parts of one.

    Those that are in columns count as well.
    """
    rivals = Counter(it.slot for it in live)
    used: dict[int, float] = {}
    if len(there := world.running.nodes):
        rows, counts = np.unique(there[there >= 0], return_counts=True)
        used = dict(zip(rows.tolist(), counts.tolist(), strict=True))
    for it in live:
        if (row := world.nodes.index.get(it.node)) is not None:
            used[row] = used.get(row, 0) + 1 / rivals[it.slot]
    return used


def _by_slot(live: Iterable[ExecutionView]) -> dict[int, list[ExecutionView]]:
    slots: dict[int, list[ExecutionView]] = {}
    for execution in live:
        slots.setdefault(execution.slot, []).append(execution)
    return slots


def _furthest(execution: ExecutionView) -> tuple[int, datetime, str]:
    return (-_FAR[execution.observed], execution.created_at, execution.id)


def _others(rivals: Iterable[ExecutionView], best: ExecutionView, why: str) -> list[Stop]:
    return _surplus((it for it in rivals if it is not best), why)


def _surplus(them: Iterable[ExecutionView], why: str) -> list[Stop]:
    return [Stop(it.id, StopCause.SURPLUS_BID, why) for it in them]


def _bids(execution: ExecutionView) -> bool:
    return (
        execution.desired is Desired.PENDING and execution.observed is Observed.ASK_FOR_BID_ACCEPTED
    )
