"""`muster namespace`: the places that jobs live in."""

from __future__ import annotations

from typing import Annotated

import typer

from .client import segment
from .following import show_list
from .options import AsFormat, InUtc, Most, NoHeaders, Quiet, client, output
from .output import Column, Format, Instant

app = typer.Typer(help="List, make and remove namespaces.", no_args_is_help=True)

_COLUMNS = (
    Column("NAME", lambda it: it["name"]),
    Column("ROLE", lambda it: it["role"]),
    Column("DESCRIPTION", lambda it: it["description"]),
    Column("CREATED", lambda it: Instant(it["created_at"]), wide=True),
)

Name = Annotated[str, typer.Argument(help="of the namespace")]


@app.command("list")
def list_namespaces(
    context: typer.Context,
    form: AsFormat = Format.TABLE,
    no_headers: NoHeaders = False,
    quiet: Quiet = False,
    limit: Most = 50,
    utc: InUtc = None,
) -> None:
    """The namespaces that you may see, with your role in each."""
    out = output(form, no_headers, quiet, utc)
    show_list(context, "namespaces", out, _COLUMNS, most=limit)


@app.command()
def create(
    context: typer.Context,
    name: Name,
    description: Annotated[str, typer.Option(help="what it is for")] = "",
    form: AsFormat = Format.TABLE,
) -> None:
    """Make a namespace; roles in it are given in the administration."""
    with client(context) as api:
        made = api.post("namespaces", {"name": name, "description": description})
    output(form).done(made, f"{made['name']} is there.")


@app.command()
def delete(context: typer.Context, name: Name, form: AsFormat = Format.TABLE) -> None:
    """Remove a namespace in which no job is, not even one that has ended."""
    with client(context) as api:
        gone = api.delete(f"namespaces/{segment(name)}")
    output(form).done(gone, f"{gone['name']} is removed.")
