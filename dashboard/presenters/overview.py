"""What an operator sees first: what needs attention, and four numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.explain import reasons, wording
from orchestrator.explain.formatting import capitalised, capped, counted, duration
from orchestrator.explain.reasons import Impossible

from . import states
from .bars import Spark, spark
from .jobs import by_look

if TYPE_CHECKING:
    from datetime import datetime

    from dashboard.queries.overview import Minute
    from nodes.models import Node
    from orchestrator.broker import Standing
    from orchestrator.models import Job

MINUTES = 60


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to look at: what is wrong, since when, and where to do something about it.

    ``others`` counts what is in the same trouble, beside the one that is named.
    """

    look: str
    word: str
    subject: str
    text: str
    kind: str
    key: str
    since: datetime | None = None
    approve: bool = False
    others: str = ""


@dataclass(frozen=True, slots=True)
class Attention:
    """What needs attention, the worst first, at most SHOWN; ``calm`` is said when nothing does.

    ``well`` is whether that is all there is to say.
    """

    items: Sequence[Item]
    more: str
    calm: str
    well: bool


@dataclass(frozen=True, slots=True)
class Tile:
    name: str
    value: str
    note: str
    look: str
    spark: Spark | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """How long something took: median and 95th percentile, in words and as widths."""

    text: str
    mean: str
    p50: str
    p95: str
    low: float
    high: float


SHOWN = 20

_GRAVITY = ("dead letter", "", "impossible", "failed", "slow", "awaits approval", "blocked")
"""Whatever else is said, is of a node that is silent or quarantined: the second place."""


def attention(
    nodes: Sequence[Node],
    stuck: Sequence[tuple[Job, Standing]],
    failed: Sequence[Job],
    *,
    cap: int,
    failures: int = 0,
    troubled: bool = False,
    known: int = 1,
) -> Attention:
    """Everything that an operator should look at, the worst first, equals together.

    Of nodes, of failed jobs and of each kind of stuck ones no more than *cap* were counted.
    *failures* are executions that failed in the last hour, *known* the nodes; *troubled* says
    that a banner above tells of worse.
    """
    items = [_of_node(node) for node in nodes]
    items += [_of_stuck(job, row) for job, row in stuck if row.state in _STUCK]
    items += [_of_failed(job) for job in failed]
    cut = {kind for kind, n in Counter(map(_read_with, items)).items() if n >= cap}
    equal: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        own = item.key if item.approve else ""  # Each has a button of its own.
        equal.setdefault((item.word, item.kind, item.text, own), []).append(item)
    shown = [replace(first, others=_others(first, rest, cut)) for first, *rest in equal.values()]
    rank = {word: place for place, word in enumerate(_GRAVITY)}
    shown.sort(key=lambda item: rank.get(item.word, rank[""]))
    beyond = len(shown) - SHOWN
    return Attention(
        items=shown[:SHOWN],
        more=_and(beyond, "trouble", is_cut=bool(cut)),
        calm=_calm(failures, troubled, known),
        well=not troubled and known > 0,
    )


def _read_with(item: Item) -> str:
    """Nodes are read in one list, whatever their trouble; jobs in one for each."""
    return item.kind if item.kind == "node" else item.word


def _others(first: Item, rest: Sequence[Item], cut: Collection[str]) -> str:
    return _and(len(rest), first.kind, is_cut=_read_with(first) in cut)


def _and(number: int, noun: str, *, is_cut: bool) -> str:
    """So many others; more than that where what was read *is_cut*."""
    if number <= 0:
        return ""
    return f"and {number:,}+ other {noun}s" if is_cut else f"and {counted(number, f'other {noun}')}"


def _calm(failures: int, troubled: bool, known: int) -> str:
    """What is to say where nothing needs attention: no more than what is so."""
    tries = f"; {counted(failures, 'execution')} did" if failures else ""
    jobs = f"no job is stuck, none failed in the last hour{tries}."
    if troubled:
        return f"Beyond what is said above, {jobs}"
    return f"All is well: every node answers, {jobs}" if known else capitalised(jobs)


def tiles(
    live: Mapping[str, int],
    waiting: Mapping[str, int],
    minutes: Sequence[Minute],
    nodes: tuple[int, int],
    *,
    cap: int,
    cap_failed: int,
) -> list[Tile]:
    """Running, waiting, failed, nodes."""
    looks = by_look(live)
    by_minute = {minute.ago: minute for minute in minutes if minute.ago < MINUTES}
    series = [by_minute.get(ago) for ago in reversed(range(MINUTES))]
    started = [minute.started if minute else 0 for minute in series]
    failed = [minute.failed if minute else 0 for minute in series]
    ready, known = nodes
    queued, pending = waiting.get("queued", 0), waiting.get("pending", 0)
    return [
        Tile(
            "Executions running",
            f"{looks.get('running', 0):,}",
            f"{looks.get('starting', 0):,} starting",
            "running",
            spark(started, "executions that started, by minute"),
        ),
        Tile(
            "Jobs waiting",
            capped(queued + pending, cap),
            f"{queued:,} queued, {pending:,} not evaluated yet",
            "waiting",
        ),
        Tile(
            "Executions failed",
            capped(sum(failed), cap_failed),
            "in the last hour",
            "failed" if any(failed) else "ok",
            spark(failed, "executions that failed, by minute"),
        ),
        Tile(
            "Nodes ready",
            f"{ready:,} of {known:,}",
            _idle(ready, known),
            "ok" if 0 < ready == known else "blocked",
        ),
    ]


def _idle(ready: int, known: int) -> str:
    """How many of the *known* nodes take no work."""
    if not known:
        return "there is no node"
    if ready == known:
        return "every one takes work"
    return f"{counted(known - ready, 'takes', 'take')} no new work"


_WAITS = (
    ("submit", "Submit to running", "from submission to the first attempt of a slot at work"),
    ("start", "Placed to running", "telling the node, bidding, approval, preparing"),
    ("run", "Running", "the task itself"),
)


def waits(found: Mapping[str, tuple[float | None, float | None]]) -> list[Wait]:
    """The latency strip; what nothing is known of is left out."""
    known = [
        (text, mean, low, high)
        for name, text, mean in _WAITS
        for low, high in [found.get(name, (None, None))]
        if low is not None and high is not None
    ]
    longest = max((high for *_, high in known), default=0.0) or 1.0
    return [
        Wait(
            text,
            mean,
            duration(low),
            duration(high),
            round(max(0.6, 100 * low / longest), 2),
            round(max(0.6, 100 * high / longest), 2),
        )
        for text, mean, low, high in known
    ]


def _of_node(node: Node) -> Item:
    shown = states.node(node)
    waits = node.approval == "pending"
    text = f"{capitalised(shown.mean)}."
    since = node.created_at if waits else node.connection_since
    return Item(shown.look, shown.word, node.name, text, "node", str(node.pk), since, waits)


def _of_failed(job: Job) -> Item:
    return Item("failed", "failed", job.name, _said(job), "job", str(job.pk), job.ended_at)


def _said(job: Job) -> str:
    return capitalised(wording.text(wording.all_of(reasons.load(job.reason))))


_STUCK = ("dead", "blocked", "ready")
"""The others went on between the two looks."""


def _of_stuck(job: Job, row: Standing) -> Item:
    key = str(job.pk)
    if row.dead_letter is not None:
        text = f"Its evaluation failed {counted(row.deliveries, 'time')}: {row.dead_letter}"
        return Item("failed", "dead letter", job.name, text, "job", key, row.since)
    if row.waits is not None:
        never = isinstance(row.waits.why, Impossible)
        look, word = ("failed", "impossible") if never else ("blocked", "blocked")
        text = _said(job) or "Nothing fits now."
        return Item(look, word, job.name, text, "job", key, row.since)
    text = "Waits for a worker longer than usual."
    return Item("blocked", "slow", job.name, text, "job", key, row.since)
