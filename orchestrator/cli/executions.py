"""`muster execution`: one attempt of one slot on one node."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from orchestrator.explain.formatting import person

from .client import segment
from .following import repeated, show_list
from .jobs import EXECUTIONS
from .logs import of_execution, print_both, print_log, tell_if_it_waits
from .options import (
    AsFormat,
    InUtc,
    Most,
    NoHeaders,
    Quiet,
    Reference,
    Watching,
    client,
    output,
    with_namespace,
)
from .output import Column, Format, Instant, Output, say

app = typer.Typer(help="List and show executions, and read their logs.", no_args_is_help=True)

_HISTORY = (
    Column("REV", lambda it: it["rev"]),
    Column("AT", lambda it: Instant(it["at"], is_clock=True)),
    Column("LANE", lambda it: it["lane"]),
    Column("FROM", lambda it: it["before"] or "-"),
    Column("TO", lambda it: it["after"]),
    Column("WRITER", lambda it: it["writer"]),
    Column("ACTOR", lambda it: person(it["actor"])),
    Column("WHY", lambda it: it["reason"]),
)


@app.command("list")
def list_executions(
    context: typer.Context,
    job: Annotated[str, typer.Option(help="only of this job")] = "",
    node: Annotated[str, typer.Option(help="only on this node")] = "",
    state: Annotated[str, typer.Option(help="only in these observed states, with commas")] = "",
    form: AsFormat = Format.TABLE,
    no_headers: NoHeaders = False,
    quiet: Quiet = False,
    watch: Watching = None,
    limit: Most = 50,
    utc: InUtc = None,
) -> None:
    """The newest executions."""
    if job and node:
        raise typer.BadParameter("--job and --node cannot be combined")
    path = f"jobs/{segment(job)}/executions" if job else "executions"
    out, asked = output(form, no_headers, quiet, utc), {"observed": state, "node": node}
    columns = with_namespace(context, EXECUTIONS, lambda it: it["job"]["namespace"])
    show_list(context, path, out, columns, watch=watch, most=limit, key="id", **asked)


@app.command()
def show(
    context: typer.Context,
    execution: Reference,
    form: AsFormat = Format.TABLE,
    watch: Watching = None,
    utc: InUtc = None,
) -> None:
    """One execution, with every transition that it made."""
    with client(context) as api:
        path, out = f"executions/{segment(execution)}", output(form, utc=utc)
        repeated(lambda: _show(api.get(path), out), watch)


@app.command()
def logs(
    context: typer.Context,
    execution: Reference,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="until it ends")] = False,
    stdout: Annotated[bool, typer.Option("--stdout", help="only this stream")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="only this stream")] = False,
    tail: Annotated[
        Optional[int],  # noqa: UP045 - typer reads it at run time
        typer.Option(metavar="BYTES", min=0, help="only the last"),
    ] = None,
    offset: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="BYTE", min=0, help="from this byte on"),
    ] = None,
) -> None:
    """What one execution prints, stderr to standard error; on a terminal that is red."""
    is_both = stdout == stderr
    if is_both and offset is not None:
        raise typer.BadParameter("--offset is a place in one stream: add --stdout or --stderr")
    path = f"executions/{segment(execution)}/logs"
    reading = {"follow": follow, "tail": tail, "offset": offset}
    with client(context) as api:
        if follow:
            tell_if_it_waits(api.get(f"executions/{segment(execution)}"))
        if is_both:
            print_both(api, path, reading, of_execution)
        else:
            stream = "stderr" if stderr else "stdout"
            print_log(api, path, of_execution({"stream": stream} | reading))


def _show(it: dict[str, Any], out: Output) -> None:
    out.one(
        it,
        [
            ("id", it["id"]),
            ("job", f"{it['job']['name']} slot {it['slot']}, attempt {it['attempt']}"),
            ("node", it["node"]["name"]),
            ("desired", it["desired"]),
            ("observed", f"{it['observed']} ({it['sentence']})"),
            ("exit code", it["exit_code"]),
            ("code", it["code"]),
            ("hint", it["hint"]),
            ("stop cause", ": ".join(filter(None, (it["stop_cause"], it["stop_detail"])))),
            ("ran", f"{it['ran']:.3f} s" if it["ran"] is not None else ""),
            ("created", Instant(it["created_at"])),
            ("ended", Instant(it["ended_at"])),
        ],
        name="id",
    )
    if out.is_for_people:
        say("")
        out.table(it["history"], _HISTORY)
