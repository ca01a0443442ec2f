"""What tasks print, printed: made harmless on a terminal, as it is everywhere else."""

from __future__ import annotations

import sys
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any

from . import sanitise
from .client import Client
from .failures import Code, Failure, Unreachable
from .following import PATIENCE
from .output import leave_quietly, say, tell

MOST_NAMED = 150
"""Executions that a server goes on with; of more it is not told where each was."""

PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Between one attempt to read on and the next."""

GoOn = Callable[[dict[str, int]], dict[str, Any]]
"""The parameters that go on after what was read: by execution, the offset where it ended."""


def of_execution(parameters: dict[str, Any]) -> GoOn:
    """Read one log, first as *parameters* say and then on from the byte after the last one."""

    def go_on(after: dict[str, int]) -> dict[str, Any]:
        offset = next(iter(after.values()), None)
        return parameters if offset is None else parameters | {"tail": None, "offset": offset}

    return go_on


def of_job(parameters: dict[str, Any]) -> GoOn:
    """Read the logs of all executions of a job, each on from the line after its last one."""

    def go_on(after: dict[str, int]) -> dict[str, Any]:
        return parameters | {"after": ",".join(f"{it}:{n}" for it, n in after.items())}

    return go_on


def print_log(client: Client, path: str, go_on: GoOn) -> None:
    """Print a log as it comes, notes of the server beside it; an interruption only ends that."""
    try:
        harmless = sanitise.Stream() if sys.stdout.isatty() else None
        for data, is_note in _read(client, path, go_on):
            if is_note:
                tell(sanitise.block(data.decode(errors="replace").rstrip("\n")))
            elif harmless is not None:
                say(harmless.feed(data), end="")
            else:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
    except BrokenPipeError:
        leave_quietly()
    except KeyboardInterrupt:
        tell("")
        raise SystemExit(Code.INTERRUPTED) from None


def _read(client: Client, path: str, go_on: GoOn) -> Iterator[tuple[bytes, bool]]:
    """The pieces of the log, and whether each is a note about it, to the end.

    It is read on where it broke off when the server was away for a while.
    """
    after: dict[str, int] = {}
    heard_at: float | None = None
    pause = PAUSE
    while True:
        try:
            for record in client.records(path, **go_on(after)):
                heard_at, pause = time.monotonic(), PAUSE
                if "data" in record:
                    yield b64decode(record["data"]), bool(record.get("note"))
                    if record["after"] >= 0:
                        after[record["execution"]] = record["after"]
                if record.get("end"):
                    return
            broken = Unreachable(f"{client.server} broke the log off.")
        except Unreachable as error:
            broken = error
        if heard_at is None or time.monotonic() - heard_at > PATIENCE:
            raise broken
        if len(after) > MOST_NAMED:
            raise Failure(
                f"The log broke off, and cannot go on: it had more than {MOST_NAMED} executions.",
                hint="Ask again with --tail, or read executions one by one.",
            ) from broken
        if pause == PAUSE:
            tell(f"muster: waiting for {client.server}; the log goes on where it broke off")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
