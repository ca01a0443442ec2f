"""The slots of a job as a grid: a cell a slot, or a cell for several when there are many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.explain.formatting import counted
from orchestrator.scheduling import slot_set

from . import states

if TYPE_CHECKING:
    from uuid import UUID

    from orchestrator.scheduling.world import Progress

MOST_CELLS = 400

#: Look and word by their code in the row of slots; the first is what nothing is known of.
_KINDS = (
    ("waiting", "waiting"),
    ("ok", "completed"),
    ("running", "running"),
    ("starting", "starting"),
    ("starting", "stopping"),
    ("blocked", "blocked"),
    ("failed", "failed"),
    ("lost", "lost"),
    ("stopped", "stopped"),
    ("waiting", "not run"),
)
_CODE = {word: code for code, (_, word) in enumerate(_KINDS)}
#: The code of an execution that is not stopping, by its look.
_OF_LOOK = {look: _CODE[word] for look, word in _KINDS if word not in {"stopping", "not run"}}

_WANTED = ("stopped", "pending", "running")

Live = tuple[int, str, str, "UUID"]


@dataclass(frozen=True, slots=True)
class Cell:
    """``execution`` is the id to open, "" when there is none to open."""

    look: str
    label: str
    title: str
    execution: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """``legend`` counts slots by look; ``each`` is how many slots one cell stands for."""

    cells: tuple[Cell, ...]
    legend: tuple[tuple[str, str, int], ...]
    each: int
    note: str


def grid(count: int, live: Sequence[Live], progress: Progress, *, state: str) -> Grid:
    """The slots 0 to *count* - 1, from what is live and what the progress accounts for."""
    ended = state not in {"pending", "queued", "running"}
    row = _row(count, progress, ended=ended)
    newest: dict[int, tuple[str, str, str]] = {}
    # Several of one slot: the wanted one is drawn last, and so the one that is seen.
    for slot, desired, observed, pk in sorted(live, key=lambda it: _WANTED.index(it[1])):
        if slot < count and not (ended and row[slot] == _CODE["completed"]):
            shown = states.execution(desired, observed)
            row[slot] = _CODE.get(shown.word, _OF_LOOK[shown.look])
            newest[slot] = (shown.look, shown.word, str(pk))
    each = max(1, -(-count // MOST_CELLS))
    if each == 1:
        cells = tuple(_cell(slot, code, newest, progress) for slot, code in enumerate(row))
    else:
        cells = tuple(_many(row, first, each) for first in range(0, count, each))
    legend = tuple(
        (look, word, n)
        for place in states.ORDER
        for code, (look, word) in enumerate(_KINDS)
        if look == place and (n := row.count(code))
    )
    note = "" if each == 1 else f"a cell stands for {each} slots"
    return Grid(cells, legend, each, note)


def _row(count: int, progress: Progress, *, ended: bool) -> bytearray:
    """The code of each slot as the progress has it."""
    codes = bytes([_CODE["not run" if ended else "waiting"], _CODE["completed"]])
    row = bytearray(slot_set.flags(progress.completed, count).translate(codes.ljust(256)))
    for slot in progress.failed_attempts:
        if slot < count and row[slot] != _CODE["completed"]:
            row[slot] = _CODE["failed" if ended or slot not in progress.retry_at else "waiting"]
    return row


def _cell(
    slot: int, code: int, newest: Mapping[int, tuple[str, str, str]], progress: Progress
) -> Cell:
    if slot in newest:
        look, word, execution = newest[slot]
        return Cell(look, str(slot), f"slot {slot}: {word}", execution)
    look, word = _KINDS[code]
    failures = progress.failed_attempts.get(slot, 0)
    if failures and look != "ok":
        word += f" after {counted(failures, 'failed attempt')}"
    if slot in progress.retry_at and look == "waiting":
        word += f", again at {progress.retry_at[slot]:%H:%M:%S} UTC"
    return Cell(look, str(slot), f"slot {slot}: {word}")


def _many(row: bytearray, first: int, each: int) -> Cell:
    part = row[first : first + each]
    found = [
        (look, f"{n} {word}")
        for urgent in states.URGENCY
        for code, (look, word) in enumerate(_KINDS)
        if look == urgent and (n := part.count(code))
    ]
    said, last = ", ".join(text for _, text in found), first + len(part) - 1
    return Cell(found[0][0], str(first), f"slots {first} to {last}: {said}")
