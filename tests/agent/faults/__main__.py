"""Try a fault at every place: ``python -m tests.agent.faults [--jobs 3] [--minutes 60]``."""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.agent.faults.plans import Places, count, number_of, plans, tell
from tests.agent.faults.story import Plan, Verdict
from tests.agent.faults.tracing import why_not


async def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=3, help="plans at once (%(default)s)")
    options.add_argument("--minutes", type=float, default=1e9, help="begin no plan later than this")
    options.add_argument("--only", default="", help="only plans whose sentence this pattern finds")
    chosen = options.parse_args()
    if reason := why_not():
        _say(reason)
        return 2
    began, directory = time.monotonic(), Path(tempfile.mkdtemp(prefix="muster-faults-"))
    places = await count(directory)
    chosen_plans = [plan for plan in plans(places) if re.search(chosen.only, str(plan))]
    chosen_plans = _each_place_first(chosen_plans)
    _say(f"{len(chosen_plans)} plans, in {directory}")
    at_once = asyncio.Semaphore(chosen.jobs)

    async def one(number: int, plan: Plan) -> Verdict | None:
        async with at_once:
            if time.monotonic() > began + chosen.minutes * 60:
                return None
            place = directory / str(number)
            verdict = await tell_to_the_end(plan, place)
            if verdict.found:
                _say(f"{number:4} {plan}: {'; '.join(verdict.found)}")
            else:
                shutil.rmtree(place)
            if number % 50 == 0:
                _say(f"{number:4} plans after {time.monotonic() - began:.0f} s")
            return verdict

    told = await asyncio.gather(*(one(n, plan) for n, plan in enumerate(chosen_plans, 1)))
    verdicts = [verdict for verdict in told if verdict is not None]
    _say(table(places, verdicts))
    wrong = sum(bool(verdict.found) for verdict in verdicts)
    took = time.monotonic() - began
    _say(f"{len(verdicts)} of {len(told)} plans in {took:.0f} s, {wrong} with a finding")
    return 1 if wrong else 0


def _each_place_first(plans: list[Plan]) -> list[Plan]:
    """First one plan for each place, then another: so short time leaves out no place."""
    random.Random(1).shuffle(plans)
    before: Counter[tuple[str, str, int]] = Counter()
    turns = []
    for plan in plans:
        turns.append(before[plan.role, plan.call, plan.at])
        before[plan.role, plan.call, plan.at] += 1
    return [plan for _, plan in sorted(zip(turns, plans, strict=True), key=lambda it: it[0])]


async def tell_to_the_end(plan: Plan, place: Path) -> Verdict:
    """The verdict on *plan*; a story that comes to no end is one, too.

    What strikes a call that no disk fails is told again: the calls of a process are not the same
    each time.
    """
    try:
        for _ in range(5):
            verdict = await tell(plan, place)
            if verdict.is_possible or not verdict.found:
                return verdict
            shutil.rmtree(place)
    except (TimeoutError, OSError) as error:
        return Verdict(plan, True, (f"came to no end: {error!r}",), 0, {})
    return verdict


def table(places: Places, verdicts: list[Verdict]) -> str:
    """Role by call by fault: places, plans, how many were hit, had an unknown end, were wrong."""
    rows: dict[tuple[str, str, str], Counter[str]] = {}
    in_order = sorted(verdicts, key=lambda one: (one.plan.role, one.plan.call, one.plan.fault))
    for verdict in in_order:
        plan = verdict.plan
        row = rows.setdefault((plan.role, plan.call, plan.fault), Counter())
        row["plans"] += 1
        row["hit"] += verdict.hit
        row["unknown"] += bool(verdict.unknown)
        row["wrong"] += bool(verdict.found)
    lines = [f"{'role':10} {'call':10} places {'fault':18} plans   hit right not-known wrong"]
    for (role, call, fault), row in rows.items():
        right = row["plans"] - row["unknown"] - row["wrong"]
        number = number_of(places[role].get(call, []))
        lines.append(
            f"{role:10} {call:10} {number:6} {fault:18} {row['plans']:5} {row['hit']:5}"
            f" {right:5} {row['unknown']:9} {row['wrong']:5}"
        )
    for fault, dies in dict.fromkeys((one.plan.fault, one.plan.dies) for one in in_order):
        alike = [one for one in verdicts if (one.plan.fault, one.plan.dies) == (fault, dies)]
        hit = sum(verdict.hit for verdict in alike)
        unsynced = sum(not verdict.plan.is_synced for verdict in alike)
        wrong = sum(bool(verdict.found) for verdict in alike)
        lines.append(
            f"{fault}, {dies}: {len(alike)} plans, {hit} hit, {unsynced} of them without what was "
            f"never synced, {wrong} wrong"
        )
    made = sum(number_of(calls) for of_role in places.values() for calls in of_role.values())
    been = {(one.plan.role, one.plan.call, one.plan.at) for one in verdicts}
    places_hit = {(one.plan.role, one.plan.call, one.plan.at) for one in verdicts if one.hit}
    lines.append(
        f"{made} places, {len(been)} tried, {len(places_hit)} hit; two restarts after each plan"
    )
    return "\n".join(lines)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what it is for


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
