"""The options that several commands share, and what a command is given to work with."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from .client import MOST, Client
from .config import Settings, resolve
from .failures import Code, Failure
from .output import Column, Format, Output

Reference = Annotated[str, typer.Argument(help="name, id, or the beginning of an id")]
AsFormat = Annotated[Format, typer.Option("-o", "--output", help="how to print it")]
NoHeaders = Annotated[bool, typer.Option("--no-headers", help="no line of titles")]
InUtc = Annotated[
    Optional[bool],  # noqa: UP045 - typer reads it at run time
    typer.Option("--utc/--local", help="exact times, in UTC or as clocks show them here"),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="only names or ids")]
Watching = Annotated[
    Optional[float],  # noqa: UP045 - typer reads it at run time
    typer.Option(
        "-w", "--watch", metavar="SECONDS", min=0.1, max=86400, help="show it again and again"
    ),
]
Most = Annotated[int, typer.Option("--limit", min=1, max=MOST, help="how many at most")]
Reason = Annotated[str, typer.Option("--reason", help="why, for whoever looks later")]

ALL = "*"
"""In place of a namespace: all that one may see."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, None: 1}


@dataclass(slots=True)
class Call:
    """What the flags before the command say about the server."""

    server: str | None = None
    token_file: Path | None = None
    namespace: str | None = None

    def settings(self) -> Settings:
        return resolve(self.server, self.token_file, namespace=self.namespace)

    def client(self) -> Client:
        return Client(self.settings())


def client(context: typer.Context) -> Client:
    """The client of this call."""
    call: Call = context.obj
    return call.client()


def with_namespace(
    context: typer.Context, columns: Sequence[Column], key: Callable[[Any], str]
) -> Sequence[Column]:
    """*columns*, and where all namespaces are listed, first the one of each row."""
    call: Call = context.obj
    is_wide = call.settings().namespace == ALL
    return (Column("NAMESPACE", key), *columns) if is_wide else columns


def output(
    form: Format, no_headers: bool = False, quiet: bool = False, utc: bool | None = None
) -> Output:
    return Output(Format.NAME if quiet else form, headers=not no_headers, utc=utc)


def seconds(text: str) -> float | None:
    """How long *text* says, as ``90s`` or ``10m``; None when it says nothing."""
    if not text:
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise Failure(
            f"{text!r} is not a length of time.", code=Code.USAGE, hint="Write it as 90s or 10m."
        )
    return float(found[1]) * _SECONDS[found[2]]
