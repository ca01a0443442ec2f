"""`muster secret`: values that jobs name and never contain."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from orchestrator.explain.formatting import person

from .client import segment
from .failures import Code, Failure
from .following import show_list
from .options import AsFormat, InUtc, Most, NoHeaders, Quiet, client, output, with_namespace
from .output import Column, Format, Instant

app = typer.Typer(help="Put, list and delete secrets.", no_args_is_help=True)

LARGEST = 64 * 1024 + 8
"""Bytes that are read of a value: more than any may have."""

_COLUMNS = (
    Column("NAME", lambda it: it["name"]),
    Column("VERSION", lambda it: it["version"]),
    Column("PUT", lambda it: Instant(it["updated_at"])),
    Column("BY", lambda it: person(it["updated_by"])),
    Column("USED BY", lambda it: ", ".join(it["used_by"])),
    Column("CREATED", lambda it: Instant(it["created_at"]), wide=True),
)

Name = Annotated[str, typer.Argument(help="of the secret")]


@app.command()
def put(
    context: typer.Context,
    name: Name,
    value: Annotated[Optional[str], typer.Argument(hidden=True)] = None,  # noqa: UP045
    file: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads it at run time
        typer.Option(help="that has the value; else it is asked for, or read from standard input"),
    ] = None,
    form: AsFormat = Format.TABLE,
) -> None:
    """Keep a value, which nobody can read again; a newline at its end is left out."""
    if value is not None:
        raise Failure(
            "A value is never given as an argument: others on this machine could read it there.",
            code=Code.USAGE,
            hint=f"muster secret put {name} asks for it, reads standard input, or takes --file.",
        )
    said = _value(name, file)
    with client(context) as api:
        kept = api.put(f"secrets/{segment(name)}", {"value": said})
    what = f"is kept, version {kept['version']}" if kept["changed"] else "has that value already"
    output(form).done(kept, f"{kept['name']} {what}; jobs name it secret://{kept['name']}.")


@app.command("list")
def list_secrets(
    context: typer.Context,
    form: AsFormat = Format.TABLE,
    no_headers: NoHeaders = False,
    quiet: Quiet = False,
    limit: Most = 50,
    utc: InUtc = None,
) -> None:
    """The secrets that there are, without their values."""
    out = output(form, no_headers, quiet, utc)
    columns = with_namespace(context, _COLUMNS, lambda it: it["namespace"])
    show_list(context, "secrets", out, columns, most=limit)


@app.command()
def delete(context: typer.Context, name: Name, form: AsFormat = Format.TABLE) -> None:
    """Forget a secret: what runs keeps it, what waits for it cannot be started."""
    with client(context) as api:
        gone = api.delete(f"secrets/{segment(name)}")
    users = ", ".join(gone["used_by"])
    still = f"; it is still named by {users}" if users else ""
    output(form).done(gone, f"{gone['name']} is deleted{still}.")


def _value(name: str, file: Path | None) -> str:
    if file is None and sys.stdin is not None and sys.stdin.isatty():
        return getpass.getpass(f"Value of {name} (it is not shown): ")
    try:
        if file is not None and str(file) != "-":
            with file.open("rb") as source:
                data = source.read(LARGEST)
        elif sys.stdin is None:
            raise Failure("Standard input is closed.", code=Code.USAGE, hint="Give --file.")
        else:
            data = sys.stdin.buffer.read(LARGEST)
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        what = "The value is not UTF-8, and variables of tasks are text."
        raise Failure(what, code=Code.USAGE, hint="Encode it, for example in base64.") from None
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}.", code=Code.USAGE) from None
