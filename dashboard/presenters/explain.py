"""Why something waits: the placement record as a funnel, in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nodes.protocol.resources import DIMENSIONS
from orchestrator.formatting import amount, amounts, capitalised, listed, named

_FIT = {"cpu": "have the cores free", "memory": "have the memory free"}
_FIT |= {"disk": "have the disk free", "gpu": "have the GPUs free"}


@dataclass(frozen=True, slots=True)
class Step:
    """One check: how many nodes pass it, and how many it alone keeps away."""

    text: str
    passes: int
    width: float
    blocker: int

    @property
    def look(self) -> str:
        return "failed" if self.passes == 0 else "waiting" if not self.blocker else "blocked"


@dataclass(frozen=True, slots=True)
class Miss:
    """A node that came near, and all that it lacks."""

    name: str
    node: str
    refusals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """``kind`` is impossible, capacity or delayed; ``act`` says who can do what about it."""

    kind: str
    look: str
    sentence: str
    act: str
    needs: str
    known: int
    steps: tuple[Step, ...]
    nearest: tuple[Miss, ...]


def explain(sentence: str, record: Mapping[str, Any]) -> Explanation:
    """The placement *record* of the evaluation that could not place something."""
    known = int(record.get("known", 0))
    steps = _steps(record, known)
    never = known > 0 and (
        record.get("large_enough") == 0
        or any(step.passes == 0 for step in steps if not step.text.startswith("have the"))
        or "impossible" in sentence
    )
    return Explanation(
        kind="impossible" if never and "impossible" in sentence else "capacity",
        look="failed" if never and "impossible" in sentence else "blocked",
        sentence=capitalised(sentence),
        act=_act(known, never=never and "impossible" in sentence),
        needs=amounts({name: record.get("need", {}).get(name, 0) for name in DIMENSIONS}),
        known=known,
        steps=steps,
        nearest=tuple(
            Miss(str(miss.get("name", "")), str(miss.get("node", "")), _lacks(miss))
            for miss in record.get("nearest", ())
        ),
    )


def _act(known: int, *, never: bool) -> str:
    if known == 0:
        return "An operator adds a node."
    if never:
        return "Change what the job asks for, or add a node that has it."
    return "It starts by itself when a node has room; adding a node or stopping work helps."


def _steps(record: Mapping[str, Any], known: int) -> tuple[Step, ...]:
    def step(text: str, counts: Mapping[str, int]) -> Step:
        passes = int(counts.get("pass", 0))
        width = round(100 * passes / known, 2) if known else 0.0
        return Step(text, passes, width, int(counts.get("only_blocker", 0)))

    found = []
    if "ready" in record:
        turned = [f"{n} {reason}" for reason, n in record.get("unready", {}).items()]
        found.append(
            step("take new work" + (f" ({listed(turned)})" if turned else ""), record["ready"])
        )
    if "driver" in record:
        found.append(step(f"have the driver {record['driver'].get('name', '')}", record["driver"]))
    found += [step(f"satisfy {one.get('text', '')}", one) for one in record.get("constraints", ())]
    needs = record.get("need", {})
    found += [
        step(f"{_FIT[name]} ({amount(name, needs[name])})", counts)
        for name, counts in record.get("fit", {}).items()
        if needs.get(name) and name in _FIT
    ]
    if "could_run_now" in record:
        found.append(step("pass every check", {"pass": record["could_run_now"]}))
    return tuple(found)


def _lacks(miss: Mapping[str, Any]) -> tuple[str, ...]:
    if miss.get("refusals"):
        return tuple(str(refusal) for refusal in miss["refusals"])
    short = miss.get("short", {})
    return tuple(f"lacks {named(name, n)}" for name, n in short.items())
