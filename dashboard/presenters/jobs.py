"""A job in a row, and a job's head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.formatting import capitalised, counted, duration, full_stop, listed

from . import states
from .bars import Bar, bar
from .states import Shown

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.models import BrokerRow, Job

_LIVE = {"pending", "queued", "running"}
_FIGURES = {"ok": "completed"}
_SLOT_WORDS = {"stopped": "not run", "failed": "failed", "waiting": "waiting"}


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job as lists show it.  ``ended`` is None while it may still change."""

    id: str
    name: str
    shown: Shown
    type: str
    version: int
    bar: Bar
    sentence: str
    waits: str
    by: str
    created: datetime
    began: datetime
    ended: datetime | None


@dataclass(frozen=True, slots=True)
class JobHead:
    """The head of a job's page: ``stop`` and ``rerun`` say whether these can be asked for."""

    line: JobLine
    stop: bool
    rerun: bool
    stopping: bool
    figures: tuple[tuple[str, str], ...]
    effect: str


def line(job: Job, row: BrokerRow | None) -> JobLine:
    """One job for a list."""
    blocked = row is not None and row.blocked_on is not None
    return JobLine(
        id=str(job.pk),
        name=job.name,
        shown=states.job(job.state, blocked=blocked),
        type=job.type,
        version=job.version,
        bar=bar(slots_of(job), _SLOT_WORDS),
        sentence=sentence(job),
        waits=waits(job, row),
        by=job.created_by.username if job.created_by else "",
        created=job.created_at,
        began=job.round_at,
        ended=job.ended_at,
    )


def head(job: Job, row: BrokerRow | None) -> JobHead:
    """What stands above everything else on a job's page."""
    live = job.state in _LIVE
    at_work = sum(n for look, n in by_look(job.tally).items() if look in {"running", "starting"})
    figures = [("slot" if job.count == 1 else "slots", f"{job.count:,}")]
    figures += [
        (_FIGURES.get(look, look), f"{n:,}")
        for look, n in slots_of(job).items()
        if n and look != "stopped"
    ]
    spare = job.tally.get("failed", 0) + job.tally.get("lost", 0)
    if spare:
        figures.append(("failed attempt" if spare == 1 else "failed attempts", f"{spare:,}"))
    figures.append(("priority", str(job.priority)))
    if job.round > 1:
        figures.append(("round", str(job.round)))
    return JobHead(
        line=line(job, row),
        stop=live and not job.stop_requested,
        rerun=not live,
        stopping=live and job.stop_requested,
        figures=tuple(figures),
        effect=(
            f"Stops {counted(at_work, 'execution that runs', 'executions that run')} now, "
            "and places nothing more."
            if at_work
            else "Nothing runs now; nothing will be placed any more."
        ),
    )


def sentence(job: Job) -> str:
    """The state of *job* in one sentence of facts."""
    if job.stop_requested and job.state in _LIVE:
        return f"Stop requested{_because(job.stop_reason)}; waiting for its nodes to confirm."
    if job.state == "stopped":
        return f"Stopped{_after(job)}{_because(job.stop_reason)}."
    if job.state == "completed" and job.count == 0:
        return "It asks for no slots."
    if job.state == "completed":
        all_of = "Its slot" if job.count == 1 else f"All {job.count:,} slots"
        return f"{all_of} completed{_after(job)}."
    if job.state == "failed" and not job.reason:
        return f"Failed{_after(job)}."
    if job.state == "pending" and not job.reason:
        return "Waits for its first evaluation."
    facts = _facts(job)
    if job.reason and (job.state == "failed" or not facts):
        return full_stop(capitalised(job.reason))
    if job.reason:
        return full_stop(f"{capitalised(facts)}; {job.reason}")
    return full_stop(capitalised(facts)) if facts else "Nothing runs yet."


def _facts(job: Job) -> str:
    """How many slots run, start and have completed; "" while none has got that far."""
    looks = slots_of(job)
    said = [f"{looks[look]:,} {look}" for look in ("running", "starting") if looks.get(look)]
    done = looks["ok"]
    if done:
        said.append(f"{done:,} of {job.count:,} completed")
    if said and not job.reason and looks.get("waiting"):
        said.insert(-1 if done else len(said), f"{looks['waiting']:,} waiting")
    return listed(said)


def waits(job: Job, row: BrokerRow | None) -> str:
    """What keeps a waiting job waiting, in a word or two; "" when nothing does."""
    if row is None or job.state not in _LIVE:
        return ""
    if row.dead_letter is not None:
        return "dead letter"
    if row.blocked_on is not None:
        return "impossible" if row.blocked_on.get("impossible") else "capacity"
    return ""


def slots_of(job: Job) -> dict[str, int]:
    """The slots of *job* by look."""
    tried = len(job.progress.get("attempts", ()))
    return slots_by_look(job.count, job.tally, job.state, tried=tried)


def slots_by_look(
    count: int, tally: Mapping[str, int], state: str, *, tried: int = 0
) -> dict[str, int]:
    """Slots by look; those of which nothing is known wait, or were given up.

    The tally counts executions, and a slot may have several: each slot is counted once, as the
    best that may be true of it.  ``tried`` is how many slots have failed attempts behind them.
    """
    looks, rest, found = by_look(tally), count, {}
    for look in ("ok", "running", "starting"):
        found[look] = min(looks.get(look, 0), rest)
        rest -= found[look]
    if state in _LIVE:
        return found | {"waiting": rest}
    if state == "failed":
        failed = min(rest, max(1, tried))
        return found | {"failed": failed, "stopped": rest - failed}
    return found | {"stopped": rest}


def by_look(tally: Mapping[str, int]) -> dict[str, int]:
    """A tally of observed states as one of looks."""
    found: dict[str, int] = {}
    for raw, n in tally.items():
        if isinstance(n, int) and raw in states.OBSERVED_STATES:
            look = states.observed(raw).look
            found[look] = found.get(look, 0) + n
    return found


def _because(reason: str) -> str:
    return f", because: {reason.rstrip('.')}" if reason else ""


def _after(job: Job) -> str:
    if job.ended_at is None:
        return ""
    return f" after {duration((job.ended_at - job.round_at).total_seconds())}"
