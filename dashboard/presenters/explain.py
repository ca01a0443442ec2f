"""Why something waits: its reason, who can do what, and the placement record as a funnel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from nodes.protocol.resources import DIMENSIONS
from orchestrator.explain import reasons, wording
from orchestrator.explain.formatting import amount, amounts, named
from orchestrator.explain.reasons import AwaitsBid, Cause, Impossible, Lack, NoRoom, Reason
from orchestrator.explain.wording import Sentence

_FIT = {"cpu": "have the cores free", "memory": "have the memory free"}
_FIT |= {"disk": "have the disk free", "gpu": "have the GPUs free"}

#: How long a node may take to answer before somebody should look.
PATIENCE = timedelta(seconds=2)

#: Of several reasons the first of these is explained.
_PRECEDENCE = (
    Cause.SILENT,
    Cause.IMPOSSIBLE,
    Cause.CAPACITY,
    Cause.DELAYED,
    Cause.LOST,
    Cause.BID,
)

LOOKS: Mapping[Cause, str] = {
    Cause.SILENT: "lost",
    Cause.IMPOSSIBLE: "failed",
    Cause.CAPACITY: "blocked",
    Cause.DELAYED: "waiting",
    Cause.LOST: "lost",
    Cause.BID: "starting",
}

_ACT: Mapping[Cause, str] = {
    Cause.SILENT: "An operator looks at the node. What runs there goes on, and is given up as lost"
    " only when the node stays away.",
    Cause.IMPOSSIBLE: "Change what the job asks for, or add a node that has it.",
    Cause.CAPACITY: "It starts by itself when a node has room; adding a node or stopping work"
    " helps.",
    Cause.DELAYED: "It is tried again by itself at that time.",
    Cause.LOST: "It goes on when the node is back; the job says so with `on_lost: wait`.",
    Cause.BID: "A node answers in a moment. If it does not, look at the node.",
}


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
    """``kind`` is the cause in a word; ``act`` says who can do what about it."""

    title: str
    kind: str
    look: str
    sentence: Sentence
    act: str
    needs: str = ""
    known: int = 0
    steps: tuple[Step, ...] = ()
    nearest: tuple[Miss, ...] = ()


def foremost(found: Iterable[Reason], now: datetime) -> Reason | None:
    """The one of *found* that a waiting job is explained by, if any.

    A bid is worth it only when it has not been answered for PATIENCE.
    """
    waits = [
        it
        for it in found
        if reasons.cause(it) in _PRECEDENCE
        and not (isinstance(it, AwaitsBid) and now - it.since < PATIENCE)
    ]
    return min(waits, key=lambda it: _PRECEDENCE.index(reasons.cause(it)), default=None)


def explain(reason: Reason, record: Mapping[str, Any] | None = None) -> Explanation:
    """*reason*, with the placement *record* where it is about nodes that were not found."""
    kind = reasons.cause(reason)
    inner = reason.why if isinstance(reason, reasons.Unplaced) else reason
    if isinstance(inner, reasons.Refused):
        sentence: Sentence = ("nodes that have room have refused it; ", *wording.reason(inner))
    elif isinstance(inner, Impossible):
        sentence = (wording.lacking(inner),)
    else:
        sentence = wording.reason(inner)
    record = record or {}
    known = int(record.get("known", 0))
    return Explanation(
        title="A node is silent" if kind is Cause.SILENT else "Why it waits",
        kind=str(kind),
        look=LOOKS.get(kind, "blocked"),
        sentence=wording.whole(sentence),
        act=_act(inner),
        needs=amounts({name: record.get("need", {}).get(name, 0) for name in DIMENSIONS})
        if record
        else "",
        known=known,
        steps=_steps(record, known),
        nearest=tuple(
            Miss(str(miss.get("name", "")), str(miss.get("node", "")), _lacks(miss))
            for miss in record.get("nearest", ())
        ),
    )


def of_record(record: Mapping[str, Any]) -> Explanation:
    """What the evaluation that left this *record* could not place, and why."""
    stored = record.get("reason")
    return explain(reasons.load_shortage(stored) if stored else _counted(record), record)


def _counted(record: Mapping[str, Any]) -> Reason:
    """The reason in a record of an earlier release, which holds only the counts."""
    known = int(record.get("known", 0))
    if not known:
        return reasons.NoNode()
    driver = record.get("driver", {})
    if driver.get("pass") == 0:
        return Impossible(known, Lack.DRIVER, str(driver.get("name", "")))
    for one in record.get("constraints", ()):
        if one.get("pass") == 0:
            return Impossible(known, Lack.CONSTRAINT, str(one.get("text", "")))
    if record.get("large_enough") == 0:
        return Impossible(known, Lack.SIZES)
    return NoRoom(known)


def _act(reason: Reason) -> str:
    if isinstance(reason, reasons.NoNode):
        return "An operator adds a node."
    if isinstance(reason, reasons.AllClosed):
        return "It starts by itself when one of them takes work again; adding a node helps, too."
    return _ACT.get(reasons.cause(reason), "")


def _steps(record: Mapping[str, Any], known: int) -> tuple[Step, ...]:
    def step(text: str, counts: Mapping[str, int]) -> Step:
        passes = int(counts.get("pass", 0))
        width = round(100 * passes / known, 2) if known else 0.0
        return Step(text, passes, width, int(counts.get("only_blocker", 0)))

    found = []
    if "ready" in record:
        turned = wording.closed(record.get("unready", {}))
        found.append(step("take new work" + (f" ({turned})" if turned else ""), record["ready"]))
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
