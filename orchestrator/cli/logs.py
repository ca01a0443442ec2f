"""What tasks print, printed: made harmless on a terminal, as it is everywhere else."""

from __future__ import annotations

import itertools
import queue
import re
import sys
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import sanitise
from .client import Client
from .failures import Code, Failure, Unreachable
from .following import PATIENCE, WAITING
from .output import is_colourful, leave_quietly, red, tell

MOST_NAMED = 150
"""Executions that a server goes on with; of more it is not told where each was."""

PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Between one attempt to read on and the next."""

GoOn = Callable[[dict[str, int]], dict[str, Any]]
"""The parameters that go on after what was read: by execution, the offset where it ended."""

Said = tuple[bytes, bool, bool]
"""Bytes, whether they are a note about the log, and whether they went to stderr."""


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


def tell_if_it_waits(it: Mapping[str, Any]) -> None:
    """Say why a job or an execution that is about to be followed prints nothing yet."""
    waits = it["state"] in WAITING if "state" in it else not (it["started_at"] or it["ended_at"])
    if waits:
        tell(
            f"muster: waiting for it to run; now it is {it.get('state') or it['observed']}: "
            f"{sanitise.line(it['sentence'])}"
        )


def print_log(client: Client, path: str, go_on: GoOn) -> None:
    """Print a log as it comes, notes of the server beside it; an interruption only ends that."""
    _print((data, is_note, False) for data, is_note in _read(client, path, go_on))


def print_both(
    client: Client,
    path: str,
    parameters: dict[str, Any],
    of: Callable[[dict[str, Any]], GoOn] = of_job,
) -> None:
    """Print both streams: one after the other, or followed as they come.

    Lines of a job's stderr are marked; stderr of one execution goes to standard error as it is.
    """
    over = threading.Event()

    def read(stream: str) -> Iterator[Said]:
        is_stderr = stream == "stderr"
        go_on = of(parameters | {"stream": stream})
        for data, is_note in _read(
            client, path, go_on, heard, is_quiet=lambda: is_stderr or over.is_set()
        ):
            yield data, is_note, is_stderr

    heard = _Heard()
    both = read("stdout"), read("stderr")
    try:
        pieces = _as_they_come(*both) if parameters.get("follow") else itertools.chain(*both)
        _print(pieces, is_marked=of is of_job)
    finally:
        over.set()


def _print(pieces: Iterable[Said], *, is_marked: bool = True) -> None:
    harmless = {is_stderr: sanitise.Stream() for is_stderr in (False, True)}
    told: Counter[tuple[bytes, bool]] = Counter()
    try:
        for data, is_note, is_stderr in pieces:
            if is_note:
                if told[data, not is_stderr]:  # What is so of both is told once.
                    told[data, not is_stderr] -= 1
                    continue
                told[data, is_stderr] += 1
                tell(sanitise.block(data.decode(errors="replace").rstrip("\n")))
                continue
            to = sys.stderr if is_stderr and not is_marked else sys.stdout
            is_coloured = is_stderr and is_colourful(to)
            takes_mark = is_stderr and is_marked and not is_coloured
            shown = _MARKED.sub(rb"\1 ! ", data) if takes_mark else data
            if to.isatty():
                text = harmless[is_stderr].feed(shown)
                shown = (red(text) if is_coloured else text).encode(to.encoding, "replace")
            to.buffer.write(shown)
            to.buffer.flush()
    except BrokenPipeError:
        leave_quietly()
    except KeyboardInterrupt:
        tell("")
        raise SystemExit(Code.INTERRUPTED) from None


_MARKED = re.compile(rb"^(\d+) \| ", re.MULTILINE)
"""What begins each line of a job; of one that went to stderr it ends in ``!``."""


def _as_they_come(*logs: Iterator[Said]) -> Iterator[Said]:
    """The pieces of several logs, each read by a thread; raises what one of them raises."""
    waiting: queue.Queue[Said | Exception | None] = queue.Queue(16)

    def read(log: Iterator[Said]) -> None:
        try:
            for piece in log:
                waiting.put(piece)
        except Exception as error:  # noqa: BLE001 - raised again where it is printed.
            waiting.put(error)
        else:
            waiting.put(None)

    for log in logs:
        threading.Thread(target=read, args=[log], daemon=True).start()
    left = len(logs)
    while left:
        match waiting.get():
            case None:
                left -= 1
            case Exception() as error:
                raise error
            case piece:
                yield piece


@dataclass
class _Heard:
    """When the server said something last, over any of the logs that are read together."""

    at: float | None = None


def _read(
    client: Client,
    path: str,
    go_on: GoOn,
    heard: _Heard | None = None,
    is_quiet: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[bytes, bool]]:
    """The pieces of the log, and whether each is a note about it, to the end.

    It is read on where it broke off when the server was away for a while.
    """
    after: dict[str, int] = {}
    heard = heard or _Heard()
    pause = PAUSE
    while True:
        try:
            for record in client.records(path, **go_on(after)):
                heard.at, pause = time.monotonic(), PAUSE
                if "data" in record:
                    yield b64decode(record["data"]), bool(record.get("note"))
                    if record["after"] >= 0:
                        after[record["execution"]] = record["after"]
                if record.get("end"):
                    return
            broken = Unreachable(f"{client.server} broke the log off.")
        except Unreachable as error:
            broken = error
        if heard.at is None or time.monotonic() - heard.at > PATIENCE:
            raise broken
        if len(after) > MOST_NAMED:
            raise Failure(
                f"The log broke off, and cannot go on: it had more than {MOST_NAMED} executions.",
                hint="Ask again with --tail, or read executions one by one.",
            ) from broken
        if pause == PAUSE and not is_quiet():
            tell(f"muster: waiting for {client.server}; the log goes on where it broke off")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
