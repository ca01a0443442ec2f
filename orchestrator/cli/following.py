"""What is looked at again and again, also while the server is away for a moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import TypeVar

import typer

from . import sanitise
from .client import Client, tell_of_more
from .failures import Code, Failure, Unreachable
from .options import client
from .output import Column, Output, say, tell

POLL = 0.25
#: How long the server may be away while something is followed.
PATIENCE = 60.0
WAITING = {"pending", "queued"}
ENDED = {"completed", "failed", "stopped"}

T = TypeVar("T")


class Until(StrEnum):
    """What is waited for."""

    COMPLETED = "completed"
    RUNNING = "running"


def follow(
    client: Client,
    job: str,
    *,
    until: Until,
    timeout: float | None,
    said: Callable[[str], None],
    begun: float | None = None,
) -> int:
    """Follow *job*, and say every change; the exit code that its end deserves.

    *begun* is when the waiting began, where others were waited for before.  An interruption leaves
    the job alone, and says how to look again.
    """
    begun, before = time.monotonic() if begun is None else begun, ""
    deadline = None if timeout is None else begun + timeout
    name, word = job, "not known to have ended"
    try:
        while True:
            try:
                state = patiently(lambda: client.get(f"jobs/{job}"), deadline)
            except Unreachable:
                if deadline is None or time.monotonic() < deadline:
                    raise
                raise _still(name, f"{word}, as far as is known,", timeout) from None
            name, word = state["name"], state["state"]
            sentence = f"{state['state']}: {state['sentence']}"
            if sentence != before:
                said(f"{time.monotonic() - begun:6.1f} s  {sanitise.line(sentence)}")
                before = sentence
            if state["state"] in ENDED:
                return Code.OK if state["state"] == "completed" else Code.FAILED
            if until is Until.RUNNING and state["state"] == "running":
                return Code.OK
            if deadline is not None and time.monotonic() >= deadline:
                raise _still(name, word, timeout)
            time.sleep(POLL)
    except KeyboardInterrupt:
        tell(f"\nmuster: detached; the job goes on. {_how_to_look(job)}")
        return Code.INTERRUPTED


def repeated(show: Callable[[], None], every: float | None) -> None:
    """Show once, or again and again until somebody interrupts."""
    ask = show
    while True:
        if every is not None and sys.stdout.isatty():
            say("\x1b[H\x1b[2J", end="")
        ask()
        if every is None:
            return
        time.sleep(every)
        ask = partial(patiently, show)


def show_list(
    context: typer.Context,
    path: str,
    out: Output,
    columns: Sequence[Column],
    *,
    most: int,
    watch: float | None = None,
    key: str = "name",
    **asked: str,
) -> None:
    """At most so many of the list at *path*, as a table; what there is more is told of."""
    with client(context) as api:

        def show() -> None:
            found = api.items(path, most=most, **asked)
            out.table(found, columns, key)
            tell_of_more(found, "--limit")

        repeated(show, watch)


def patiently(ask: Callable[[], T], deadline: float | None = None) -> T:
    """What *ask* answers; while the server is away it is asked again, and people are told.

    Raises Unreachable when that takes a minute, or when *deadline* is over.
    """
    away_since: float | None = None
    while True:
        try:
            return ask()
        except Unreachable as error:
            now = time.monotonic()
            if away_since is None:
                away_since = now
                tell(f"muster: waiting: {sanitise.line(str(error))}")
            elif now - away_since > PATIENCE:
                raise
            if deadline is not None and now >= deadline:
                raise
            time.sleep(1.0 if deadline is None else min(1.0, deadline - now))


def _still(name: str, word: str, timeout: float | None) -> Failure:
    return Failure(
        f"{name} is still {word} after {round(timeout or 0, 3):g} s; it goes on.",
        code=Code.TIMEOUT,
        hint=_how_to_look(name),
    )


def _how_to_look(job: str) -> str:
    return f"Look again: muster job show {job}; end it: muster job stop {job}"
