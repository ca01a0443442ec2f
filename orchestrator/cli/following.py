"""What is looked at again and again, also while the server is away for a moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from . import sanitise
from .client import Client
from .failures import Code, Failure, Unreachable
from .output import say, tell

POLL = 0.25
#: How long the server may be away while something is followed.
PATIENCE = 60.0
ENDED = {"completed", "failed", "stopped"}

T = TypeVar("T")


class Until(StrEnum):
    """What is waited for."""

    COMPLETED = "completed"
    RUNNING = "running"


def follow(
    client: Client, job: str, *, until: Until, timeout: float | None, said: Callable[[str], None]
) -> int:
    """Follow *job*, and say every change; the exit code that its end deserves.

    An interruption leaves the job alone, and says how to look again.
    """
    begun, before = time.monotonic(), ""
    try:
        for state in _states(client, job):
            sentence = f"{state['state']}: {state['sentence']}"
            if sentence != before:
                said(f"{time.monotonic() - begun:6.1f} s  {sanitise.line(sentence)}")
                before = sentence
            if state["state"] in ENDED:
                return Code.OK if state["state"] == "completed" else Code.FAILED
            if until is Until.RUNNING and state["state"] == "running":
                return Code.OK
            if timeout is not None and time.monotonic() - begun > timeout:
                name = state["name"]
                raise Failure(
                    f"{name} is still {state['state']} after {timeout:g} s; it goes on.",
                    code=Code.TIMEOUT,
                    hint=_how_to_look(name),
                )
            time.sleep(POLL)
    except KeyboardInterrupt:
        tell(f"\nmuster: detached; the job goes on. {_how_to_look(job)}")
        return Code.INTERRUPTED
    raise AssertionError("the states of a job do not end")


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


def patiently(ask: Callable[[], T]) -> T:
    """What *ask* answers; while the server is away it is asked again, and people are told."""
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
            time.sleep(1.0)


def _states(client: Client, job: str) -> Iterator[dict[str, Any]]:
    """The job as it is, again and again."""
    while True:
        yield patiently(lambda: client.get(f"jobs/{job}"))


def _how_to_look(job: str) -> str:
    return f"Look again: muster job show {job}; end it: muster job stop {job}"
