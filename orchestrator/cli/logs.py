"""What tasks print, printed: made harmless on a terminal, as it is everywhere else."""

from __future__ import annotations

import sys

from . import sanitise
from .client import Client
from .failures import Code
from .output import leave_quietly, say, tell


def print_log(
    client: Client,
    path: str,
    *,
    follow: bool,
    stderr: bool,
    tail: int | None,
    offset: int | None = None,
) -> None:
    """Print a log as it comes; an interruption only ends the printing."""
    stream = "stderr" if stderr else "stdout"
    try:
        with client.stream(
            path, stream=stream, follow=follow or None, tail=tail, offset=offset
        ) as pieces:
            if sys.stdout.isatty():
                harmless = sanitise.Stream()
                for piece in pieces:
                    say(harmless.feed(piece), end="")
                return
            for piece in pieces:
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
    except BrokenPipeError:
        leave_quietly()
    except KeyboardInterrupt:
        tell("")
        raise SystemExit(Code.INTERRUPTED) from None
