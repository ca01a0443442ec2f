"""Every pair of verbs, the first held before each of its statements while the second runs.

The way of PostgreSQL's isolation tester, over our own verbs: whatever the interleaving, there is
no deadlock, no error that is not a refusal of ours, every invariant holds, and what there is in
the end is what one of the two orders, one verb after the other, gives too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from django.db import connection

from nodes.errors import MusterError
from orchestrator import broker
from tests.invariants import violations

from .holding import Held, Lane
from .scenes import Stage, state
from .verbs import VERBS


@dataclass(frozen=True)
class Ending:
    """What there is after both verbs, and what they raised."""

    state: dict[str, list[str]]
    errors: tuple[str, ...]

    def differs_from(self, other: Ending) -> dict[str, tuple[list[str], list[str]]]:
        """The parts that differ: what only this one has, and what only *other* has."""
        mine = {**self.state, "errors": list(self.errors)}
        theirs = {**other.state, "errors": list(other.errors)}
        return {
            part: (
                [row for row in mine[part] if row not in theirs[part]],
                [row for row in theirs[part] if row not in mine[part]],
            )
            for part in mine
            if mine[part] != theirs[part]
        }


@dataclass
class Pair:
    """One pair of verbs in the scene of a stage; ``runs`` counts the interleavings tried."""

    stage: Stage
    lanes: tuple[Lane, Lane]
    first: str
    second: str
    runs: int = 0
    found: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.first} held while {self.second}"

    def check(self) -> Pair:
        """Try every interleaving, and note what is wrong in ``found``."""
        orders = [self._in_order(self.first, self.second), self._in_order(self.second, self.first)]
        for at, ending in self._interleaved():
            self.runs += 1
            self.found += [f"{self} at {at}: {what}" for what in self._wrong(ending, orders)]
        return self

    def _in_order(self, *names: str) -> Ending:
        scene, errors = self.stage.scene(), []
        for name in names:
            try:
                VERBS[name](scene)
            except MusterError as error:
                errors.append(type(error).__name__)
        return _ending(errors)

    def _interleaved(self) -> Iterator[tuple[int, Ending]]:
        at = 0
        while True:
            scene = self.stage.scene()
            first = Held(partial(VERBS[self.first], scene), at, self.lanes[0])
            if not first.is_held():
                first.finish()
                return
            second = Held(partial(VERBS[self.second], scene), lane=self.lanes[1])
            with connection.cursor() as cursor:
                second.is_over(cursor)
            first.finish()
            second.finish()
            yield at, _ending([_said(it.error) for it in (first, second) if it.error])
            at += 1

    def _wrong(self, ending: Ending, orders: list[Ending]) -> Iterator[str]:
        with connection.cursor() as cursor:
            yield from violations(cursor)
        unrefused = [error for error in ending.errors if ": " in error]
        yield from unrefused
        if not unrefused and ending not in orders:
            differences = min((ending.differs_from(order) for order in orders), key=len)
            yield "as in no order: " + "; ".join(
                f"{part} has {mine or '-'} where a serial order has {theirs or '-'}"
                for part, (mine, theirs) in differences.items()
            )


def _ending(errors: list[str]) -> Ending:
    broker.catch_up()  # What was passed over, because somebody held it, is taken now.
    return Ending(state(), tuple(sorted(errors)))


def _said(error: Exception) -> str:
    """A refusal by its name; anything else with what it says."""
    name = type(error).__name__
    return name if isinstance(error, MusterError) else f"{name}: {error}"
