"""`muster queue`: shown, paused, resumed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchestrator.explain.formatting import duration, person

from .following import repeated
from .options import AsFormat, Watching, client, output
from .output import Format

app = typer.Typer(help="The queue of jobs that wait for evaluation.", no_args_is_help=True)


@app.command()
def show(context: typer.Context, form: AsFormat = Format.TABLE, watch: Watching = None) -> None:
    """How many jobs wait for evaluation, and in what way."""
    with client(context) as api:
        repeated(lambda: _show(api.get("queue"), form), watch)


@app.command()
def pause(
    context: typer.Context,
    reason: Annotated[str, typer.Argument(help="shown everywhere")],
    form: AsFormat = Format.TABLE,
) -> None:
    """Evaluate nothing until it is resumed."""
    with client(context) as api:
        done = api.post("queue/pause", {"reason": reason})
    output(form).done(done, "Scheduling is paused.", name="paused")


@app.command()
def resume(context: typer.Context, form: AsFormat = Format.TABLE) -> None:
    """Evaluate again."""
    with client(context) as api:
        done = api.post("queue/resume")
    output(form).done(done, "Scheduling goes on.", name="paused")


def _show(it: dict[str, Any], form: Format) -> None:
    stats = it["stats"]
    lines: list[tuple[str, object]] = [("scheduling", paused(it))]
    lines += [(name, value) for name, value in stats.items() if isinstance(value, int)]
    lines += [("oldest", duration(stats["oldest"])), ("rate", f"{stats['rate']:.1f}/s")]
    output(form, no_headers=False).one(it, lines, name="paused")


def paused(queue: dict[str, Any]) -> str:
    if not queue["paused"]:
        return "goes on"
    return f"paused by {person(queue['paused_by'])}: {queue['paused_reason']}"


def counts(counts: dict[str, Any]) -> str:
    found = [f"{n} {word}" for word, n in counts.items() if isinstance(n, int) and n]
    return ", ".join(found) or "none"
