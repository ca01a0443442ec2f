"""Constraints that no node can ever satisfy together."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from itertools import combinations, pairwise

from .selectors import LONGEST_VALUE, Requirement

_LISTS = {"=", "in"}
_NUMBERS = {"<", "<=", ">", ">="}


def contradictions(
    constraints: Sequence[Sequence[Requirement]],
) -> list[tuple[int, tuple[Requirement, ...]]]:
    """What excludes each other: the number of the last constraint concerned, and all of it.

    One finding a label, of two requirements where two are enough.  What cannot be decided, as
    whether two patterns have a word in common, is not found.
    """
    by_key: dict[str, list[tuple[int, Requirement]]] = {}
    for number, parts in enumerate(constraints):
        for one in parts:
            by_key.setdefault(one.key, []).append((number, one))
    found = []
    for wanted in by_key.values():
        if _can_hold([one for _, one in wanted]):
            continue
        pairs = (pair for pair in combinations(wanted, 2) if not _can_hold([it[1] for it in pair]))
        culprits = next(pairs, tuple(wanted))
        found.append((max(number for number, _ in culprits), tuple(one for _, one in culprits)))
    return found


def _can_hold(wanted: Sequence[Requirement]) -> bool:
    """Whether some value of the label, or its absence, may satisfy all of *wanted*."""
    if all(one.holds(None) for one in wanted):
        return True
    if any(one.operator == "!" for one in wanted):
        return False
    listed = [value for one in wanted if one.operator in _LISTS for value in one.values]
    if listed:
        candidates = listed
    elif all(one.operator in _NUMBERS for one in wanted):
        candidates = _around([Decimal(one.values[0]) for one in wanted])
    else:
        return True
    return any(all(one.holds(value) for one in wanted) for value in candidates)


def _around(bounds: Sequence[Decimal]) -> list[str]:
    """Numbers on, between and beyond the *bounds*: if any number satisfies them, one of these."""
    with localcontext(prec=2 * LONGEST_VALUE):
        edges = sorted({*bounds, min(bounds) - 1, max(bounds) + 1})
        between = [(low + high) / 2 for low, high in pairwise(edges)]
        return [f"{number:f}" for number in (*edges, *between)]
