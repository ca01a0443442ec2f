"""Reasons, jobs, executions and nodes as sentences, for pages, API, CLI and journal.  Pure.

A sentence is a tuple of words and instants.  `text` makes it readable anywhere, as true when it is
read as when it was made; a page words its instants itself: "in 24 s", "53 s ago".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import singledispatch
from typing import Any, Protocol

from nodes import readiness
from orchestrator.lifecycle import ENDED, MEANING, JobState, Observed
from orchestrator.spec import quantities

from . import reasons
from .formatting import amounts, capitalised, clock, counted, duration, full_stop, listed, named
from .formatting import person as name_of
from .reasons import Final, How, Lack, Reason

Sentence = tuple[str | datetime, ...]


def text(sentence: Sentence) -> str:
    """*sentence* with its instants written out."""
    return "".join(it if isinstance(it, str) else f"at {clock(it)}" for it in sentence)


def whole(sentence: Sentence) -> Sentence:
    """*sentence* as it stands alone: its first letter raised, with an end."""
    if not sentence:
        return ()
    first, *rest = sentence
    raised = [capitalised(first) if isinstance(first, str) else first, *rest]
    last = raised[-1]
    raised[-1:] = [full_stop(last)] if isinstance(last, str) else [last, "."]
    return tuple(raised)


def joined(sentences: Iterable[Sentence]) -> Sentence:
    """Several facts as one sentence."""
    found: list[str | datetime] = []
    for sentence in filter(None, sentences):
        found += ["; ", *sentence] if found else sentence
    return tuple(found)


def all_of(found: Iterable[Reason]) -> Sentence:
    return joined(map(reason, found))


@singledispatch
def reason(it: Reason) -> Sentence:
    """One reason in words."""
    raise LookupError(f"there are no words for {it!r}")


@reason.register
def _(it: reasons.Said) -> Sentence:
    return (it.text,)


_HAPPENED = {
    How.FAILED: "failed on",
    How.LOST: "was lost with",
    How.UNDELIVERED: "could not be given to",
    How.OVERRAN: "ran too long on",
    How.INTERRUPTED: "was interrupted on",
}


@reason.register
def _(it: reasons.SlotFailed) -> Sentence:
    said = f"slot {it.slot} {_HAPPENED[it.how]} {it.node} at attempt {it.attempt} of {it.attempts}"
    # What a task returned is said as shortly as it can be; all else in the node's own words.
    returned = it.code == "exit-code" and it.exit_code is not None
    detail = f"exit {it.exit_code}" if returned else (it.message or it.code).rstrip(".")
    said += f": {detail}" if detail else ""
    if it.final is Final.NO_USE:
        said += "; trying again would not help"
    if it.final is Final.NOT_RETRIED:
        said += f"; {it.how} executions are not retried"
    return (said,)


@reason.register
def _(it: reasons.SlotInterrupted) -> Sentence:
    said = f"slot {it.slot} {_HAPPENED[it.how]} {it.node}"
    said += f": {it.message.rstrip('.')}" if it.message else ""
    if it.final is Final.ON_LOST:
        return (f"{said}; on_lost is fail",)
    are = "is" if it.most == 1 else "are"
    return (f"{said}; it is interruption {it.number:,}, and {it.most:,} {are} allowed",)


@reason.register
def _(it: reasons.Completed) -> Sentence:
    return (all_completed(it.count),)


@reason.register
def _(it: reasons.Stopped) -> Sentence:
    return (_asked_for(it.by, it.why),)


@reason.register
def _(it: reasons.TookTooLong) -> Sentence:
    limit = quantities.duration(it.limit)
    return (f"it took longer than the {limit} the job may take in total",)


@reason.register
def _(it: reasons.NoPlaceInTime) -> Sentence:
    within = f"within {quantities.duration(it.limit)}" if it.limit else "at once"
    slots = f"{it.missing:,} of {counted(it.count, 'slot')}"
    if isinstance(it.why, reasons.Refused):
        nodes = _names(it.why.nodes, it.why.more) or "nodes that have room"
        return (f"{slots} found no place {within}: refused by {nodes}",)
    return (f"{slots} found no place {within}: ", *reason(it.why))


@reason.register
def _(it: reasons.Unplaced) -> Sentence:
    slots = f"{it.missing:,} of {counted(it.count, 'slot')}"
    return (f"waiting for {awaited(it.why)}: {slots}; ", *reason(it.why))


@reason.register
def _(it: reasons.Impossible) -> Sentence:
    return (f"impossible: {lacking(it)}",)


def lacking(it: reasons.Impossible) -> str:
    """What no node has, without the word for it."""
    one = it.nodes == 1
    none = "the only node does not" if one else f"none of {it.nodes:,} nodes"
    has, satisfies, offers = ("have", "satisfy", "offer") if one else ("has", "satisfies", "offers")
    largest = "the only node" if one else f"the largest of {it.nodes:,} nodes"
    said = {
        Lack.DRIVER: f"{none} {has} the driver {it.what}",
        Lack.CONSTRAINT: f"{none} {satisfies} {it.what}",
        Lack.COMBINATION: f"{none} {satisfies} all constraints and {has} the driver",
        Lack.SIZE: f"needs {named(it.what, it.need)}, {largest} has {named(it.what, it.most)}",
        Lack.SIZES: f"{none} {offers} enough of everything at once",
    }
    return said[it.lack]


@reason.register
def _(it: reasons.NoNode) -> Sentence:  # noqa: ARG001 - it says all
    return ("there is no node",)


@reason.register
def _(it: reasons.NoRoom) -> Sentence:
    if not it.short:
        return ("no room",)
    lacks = listed([named(*part) for part in it.short.items()])
    best = "the only node that fits" if it.nodes == 1 else f"the best of {it.nodes:,} nodes"
    return (f"short of {lacks} on {best}",)


@reason.register
def _(it: reasons.AllClosed) -> Sentence:
    take = "takes" if it.nodes == 1 else "take"
    could = f"{counted(it.nodes, 'node')} could run it but {take} no new work"
    return (f"{could}: {closed(it.closed)}",)


@reason.register
def _(it: reasons.Refused) -> Sentence:
    return ("asked again ", it.until)


@reason.register
def _(it: reasons.Delayed) -> Sentence:
    slots = "1 slot is" if it.slots == 1 else f"{it.slots:,} slots are"
    again: Sentence = (f"{slots} tried again ", it.until)
    if it.slots > 1:
        again = (f"{slots} tried again, the next ", it.until)
    return joined([reason(it.last), again]) if it.last else again


@reason.register
def _(it: reasons.AwaitsLost) -> Sentence:
    nodes = "a lost node" if len(it.nodes) + it.more == 1 else "lost nodes"
    slots = f"{counted(it.slots, 'slot')} waiting for {nodes} to return"
    return (f"{slots}: {_names(it.nodes, it.more)}",)


@reason.register
def _(it: reasons.AwaitsBid) -> Sentence:
    bids = "a bid" if it.bids == 1 else f"{it.bids:,} bids"
    return (f"waiting for {bids} from {_names(it.nodes, it.more)}, asked ", it.since)


@reason.register
def _(it: reasons.Starting) -> Sentence:
    on = f" on {_names(it.nodes, it.more)}" if it.nodes else ""
    return (f"{counted(it.executions, 'execution')} about to start{on}",)


@reason.register
def _(it: reasons.ToPlace) -> Sentence:
    return (f"{counted(it.slots, 'slot')} to place",)


@reason.register
def _(it: reasons.ToEnd) -> Sentence:
    return (f"{counted(it.executions, 'execution')} still to end",)


@reason.register
def _(it: reasons.NodeSilent) -> Sentence:
    holds = f"which holds {counted(it.executions, 'execution')} of this job"
    return (f"nothing is heard of {it.node}, {holds}; the last word came ", it.since)


def awaited(why: reasons.Shortage) -> str:
    """What a job waits for that lacks this."""
    match why:
        case reasons.Impossible():
            return "a suitable node"
        case reasons.Refused():
            return "nodes that have refused"
        case _:
            return "capacity"


#: Why nodes take no new work: for one of them, for several.
_CLOSED = {it.one: it.many for it in readiness.UNREADY}


def closed(counts: Mapping[str, int]) -> str:
    """``1 drains, 2 are lost``."""
    return ", ".join(_closed(why, number) for why, number in sorted(counts.items()))


def _closed(why: str, number: int) -> str:
    if number == 1:
        return f"1 {why}"
    return f"{number:,} {_CLOSED[why]}" if why in _CLOSED else f"{number:,} times: {why}"


def all_completed(count: int) -> str:
    if count == 0:
        return "it asks for no slots"
    slots = {1: "its slot has", 2: "both slots have"}.get(count, f"all {count:,} slots have")
    return f"{slots} completed"


def _asked_for(by: str, why: str) -> str:
    asked = f"by {name_of(by)}" if by else "on request"
    return f"{asked}: {why.rstrip('.')}" if why else asked


def _names(names: Sequence[str], more: int) -> str:
    return listed([*names, *([counted(more, "other")] if more else [])])


# --- a job -------------------------------------------------------------------------------------


class JobLike(reasons.JobLike, Protocol):
    """What the sentence of a job is made of: its row."""

    count: int
    tally: Any
    stop_reason: str
    stopped_by: str
    round_at: datetime
    ended_at: datetime | None


#: What of a tally counts as at work, and as on its way there.
RUNNING = (Observed.RUNNING,)
STARTING = (
    Observed.ASK_FOR_BID,
    Observed.ASK_FOR_BID_ACCEPTED,
    Observed.BID_ACCEPTED,
    Observed.PREPARING,
    Observed.PUBLISHING,
)


def job(row: JobLike, also: Iterable[Reason] = ()) -> Sentence:
    """How a job is, in one sentence: first the cause, then what there is besides.

    *also* are reasons that only who looks knows, such as a node that is silent.
    """
    found = reasons.of_job(row)
    if row.state in ENDED:
        return _ended(row, found)
    if row.stop_requested:
        asked = (f"stopping, asked for {_asked_for(row.stopped_by, row.stop_reason)}",)
        return joined([asked, *map(reason, (*found, *also))])
    if row.state == JobState.PENDING:
        return joined([("waits for its evaluation",), *map(reason, also)])
    counts = _counts(row, alone=not found)
    said = joined([*map(reason, also), (counts,) if counts else (), *map(reason, found)])
    return said or ("nothing runs yet",)


def _ended(row: JobLike, found: Sequence[Reason]) -> Sentence:
    took = "" if row.ended_at is None else _after(row.ended_at, row.round_at)
    if row.state == JobState.COMPLETED:
        return (all_completed(row.count) + (took if row.count else ""),)
    done = slots_done(row.tally, row.count)
    rest = (f"{done:,} of {counted(row.count, 'slot')} completed{took}",)
    if row.state == JobState.STOPPED and not found:
        found = (reasons.Stopped(row.stopped_by, row.stop_reason),)
    return joined([*map(reason, found), rest])


def _after(ended: datetime, began: datetime) -> str:
    return f" after {duration((ended - began).total_seconds())}"


def slots_done(tally: Mapping[str, int], count: int) -> int:
    return min(tally.get(Observed.COMPLETED, 0), count)


def _counts(row: JobLike, *, alone: bool) -> str:
    """Slots by what they do: of several executions of a slot, only one is counted."""
    done = slots_done(row.tally, row.count)
    said, rest = [], row.count - done
    for word, states in (("running", RUNNING), ("starting", STARTING)):
        number = min(rest, sum(row.tally.get(state, 0) for state in states))
        rest -= number
        if number:
            said.append(f"{number:,} {word}")
    if alone and rest and (said or done):
        said.append(f"{rest:,} waiting")
    if done:
        said.append(f"{done:,} of {row.count:,} completed")
    return listed(said)


def ending(name: str, state: str, found: Iterable[Reason]) -> str:
    """What the journal says when a job comes to *state*."""
    if not (said := text(all_of(found))):
        return f"{name} is {state}"
    return (
        f"{name} is {state} {said}" if state == JobState.STOPPED else f"{name} is {state}: {said}"
    )


# --- an execution, a node ----------------------------------------------------------------------


class ExecutionLike(Protocol):
    observed: str
    message: str


#: What their messages say is what happened, and not only why.
SAID_BY_MESSAGE = {Observed.CANCELLED, Observed.LOST}


def execution(row: ExecutionLike) -> str:
    """What is known of it, and why it ended if it did."""
    meaning = MEANING[Observed(row.observed)]
    if row.observed == Observed.COMPLETED or not row.message:
        return meaning
    return row.message if row.observed in SAID_BY_MESSAGE else f"{meaning}: {row.message}"


def growth(row: NodeLike) -> str:
    """That it offers more than was approved, and what to do; empty when it does not."""
    if not row.growth:
        return ""
    more = amounts(row.growth)
    return f"offers {more}, more than was approved: `muster node approve {row.name}` accepts it"


class NodeLike(Protocol):
    name: str
    quarantined: str

    @property
    def growth(self) -> Mapping[str, int]: ...


def node(row: NodeLike) -> str:
    """The first thing that keeps it from work, or that nothing does."""
    columns = readiness.columns(row)
    why = readiness.why(columns)
    if why is None:
        return "takes work" + (f"; {grown}" if (grown := growth(row)) else "")
    said = why.sentence(columns)
    if why.code == "quarantined":
        said += f": {row.quarantined}; stop one of the two agents, then"
        said += f" `muster node release {row.name}`"
    return said
