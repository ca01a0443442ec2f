"""A job in a row, and a job's head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.explain import wording
from orchestrator.explain.formatting import counted
from orchestrator.explain.reasons import AwaitsLost, Cause, Impossible, Reason, cause, load
from orchestrator.explain.wording import Sentence
from orchestrator.lifecycle import Observed

from . import states
from .bars import Bar, bar
from .explain import LOOKS
from .states import Shown

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.broker import Standing
    from orchestrator.models import Job

_LIVE = {"pending", "queued", "running"}
_CHIPS = {Cause.IMPOSSIBLE, Cause.CAPACITY, Cause.DELAYED, Cause.LOST}
_ENDED_WORDS = {"waiting": "not run"}


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job as lists show it.

    ``began`` is when it was last run again, ``ended`` is None while it may still change.
    """

    id: str
    name: str
    namespace: str
    shown: Shown
    type: str
    version: int
    bar: Bar
    sentence: Sentence
    waits: Shown | None
    by: str
    created: datetime
    began: datetime | None
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


def line(job: Job, row: Standing | None, also: Iterable[Reason] = ()) -> JobLine:
    """One job for a list; *also* are reasons that are looked up for one job alone."""
    blocked = row.waits if row is not None else None
    return JobLine(
        id=str(job.pk),
        name=job.name,
        namespace=str(job.namespace_id),
        shown=states.job(
            job.state,
            blocked=blocked is not None,
            impossible=blocked is not None and isinstance(blocked.why, Impossible),
        ),
        type=job.type,
        version=job.version,
        bar=bar(slots_of(job), {} if job.state in _LIVE else _ENDED_WORDS),
        sentence=wording.whole(wording.job(job, also)),
        waits=waits(job, row),
        by=job.created_by.username if job.created_by else "",
        created=job.created_at,
        began=job.round_at if job.round > 1 else None,
        ended=job.ended_at,
    )


def head(job: Job, row: Standing | None, also: Iterable[Reason] = ()) -> JobHead:
    """What stands above everything else on a job's page."""
    live = job.state in _LIVE
    at_work = sum(n for look, n in by_look(job.tally).items() if look in {"running", "starting"})
    figures = [("slot" if job.count == 1 else "slots", f"{job.count:,}")]
    words = {"ok": "completed"} | ({} if live else _ENDED_WORDS)
    figures += [(words.get(look, look), f"{n:,}") for look, n in slots_of(job).items() if n]
    for kind in ("failed", "lost"):
        if spent := job.tally.get(kind, 0):
            figures.append((f"{kind} attempt" if spent == 1 else f"{kind} attempts", f"{spent:,}"))
    figures.append(("priority", str(job.priority)))
    if job.round > 1:
        figures.append(("round", str(job.round)))
    return JobHead(
        line=line(job, row, also),
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


def waits(job: Job, row: Standing | None) -> Shown | None:
    """What keeps a waiting job waiting, in a word or two; None when nothing does."""
    if job.state not in _LIVE:
        return None
    if row is not None and row.dead_letter is not None:
        return Shown("failed", "dead letter")
    if row is not None and row.waits is not None:
        never = isinstance(row.waits.why, Impossible)
        kind = Cause.IMPOSSIBLE if never else Cause.CAPACITY
        return Shown(LOOKS[kind], kind)
    kinds = [cause(it) for it in load(job.reason)]
    return next((Shown(LOOKS[it], it) for it in kinds if it in _CHIPS), None)


def slots_of(job: Job) -> dict[str, int]:
    """The slots of *job* by look."""
    tried = job.progress.get("tried", 0)
    held = sum(it.slots for it in load(job.reason) if isinstance(it, AwaitsLost))
    return slots_by_look(job.count, job.tally, job.state, tried=tried, held=held)


def slots_by_look(
    count: int, tally: Mapping[str, int], state: str, *, tried: int = 0, held: int = 0
) -> dict[str, int]:
    """Slots by look; those of which nothing is known wait, or did not run.

    The tally counts executions, and a slot may have several: each slot is counted once, as the
    best that may be true of it.  ``tried`` is how many slots have failed attempts behind them,
    ``held`` how many wait for lost nodes.
    """
    looks, rest, found = by_look(tally), count, {}

    def take(look: str, most: int) -> None:
        nonlocal rest
        found[look] = min(most, rest)
        rest -= found[look]

    for look in ("ok", "running", "starting"):
        take(look, looks.get(look, 0))
    if state in _LIVE and held:
        take("lost", held)
    elif state not in _LIVE:
        take("failed", max(tried, 1) if state == "failed" else tried)
        take("stopped", tally.get(Observed.CANCELLED, 0))
        take("lost", looks.get("lost", 0))
    return found | {"waiting": rest}


def by_look(tally: Mapping[str, int]) -> dict[str, int]:
    """A tally of observed states as one of looks."""
    found: dict[str, int] = {}
    for raw, n in tally.items():
        if isinstance(n, int) and raw in states.OBSERVED_STATES:
            look = states.observed(raw).look
            found[look] = found.get(look, 0) + n
    return found
