"""The cluster as a whole: its state, its queue, what happens in it, and how to sign in."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Annotated, Any

import typer

from orchestrator.explain.formatting import person, size

from . import config, sanitise
from .client import Client
from .failures import Code, Failure
from .following import patiently, repeated
from .options import AsFormat, Call, InUtc, Watching, client, output
from .output import Format, Instant, cores, say, span, tell

POLL = 1.0
MOST = 500
"""Events in one answer."""

queue_app = typer.Typer(help="The queue of jobs that wait for evaluation.", no_args_is_help=True)


def status(context: typer.Context, form: AsFormat = Format.TABLE, watch: Watching = None) -> None:
    """The cluster on one screen."""
    with client(context) as api:
        repeated(lambda: _show_status(api.get("status"), form), watch)


def events(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="go on with new ones")] = False,
    form: AsFormat = Format.TABLE,
    limit: Annotated[int, typer.Option("--limit", min=1, max=MOST, help="how many at most")] = 20,
    utc: InUtc = None,
) -> None:
    """What happened lately, the oldest first."""
    with client(context) as api:
        page = api.get("events", last=limit)
        seen = {event["id"] for event in page["items"]}
        _print_events(page["items"], form, utc, lines=follow)
        if len(page["items"]) == limit < MOST and not follow:
            tell(f"The newest {limit}; --limit shows more, {MOST} at most.")
        while follow:
            if len(page["items"]) < MOST:  # What did not fit into one page is there already.
                time.sleep(POLL)
            page = patiently(partial(api.get, "events", cursor=page["cursor"], limit=MOST))
            # The first page may end later than its cursor, and never earlier.
            new = [it for it in page["items"] if it["id"] not in seen]
            _print_events(new, form, utc, lines=True)


def login(
    context: typer.Context,
    server: Annotated[str, typer.Argument(help="address, as http://127.0.0.1:8000")] = "",
) -> None:
    """Keep the address and a token for later calls; the token is asked for, or read from stdin."""
    call: Call = context.obj
    address = config.resolve(server or call.server, None, {}).server if server else None
    address = address or call.settings().server
    token = _asked()
    with Client(config.Settings(address, token, "", "standard input")) as api:
        api.get("jobs", limit=1)
    file = config.config_file()
    config.keep(address, token, file)
    say(f"Signed in at {address}; kept in {file}.")


@queue_app.command("show")
def show_queue(
    context: typer.Context, form: AsFormat = Format.TABLE, watch: Watching = None
) -> None:
    """How many jobs wait for evaluation, and in what way."""
    with client(context) as api:
        repeated(lambda: _show_queue(api.get("queue"), form), watch)


@queue_app.command()
def pause(
    context: typer.Context, reason: Annotated[str, typer.Argument(help="shown everywhere")]
) -> None:
    """Evaluate nothing until it is resumed."""
    with client(context) as api:
        api.post("queue/pause", {"reason": reason})
    say("Scheduling is paused.")


@queue_app.command()
def resume(context: typer.Context) -> None:
    """Evaluate again."""
    with client(context) as api:
        api.post("queue/resume")
    say("Scheduling goes on.")


def _show_status(it: dict[str, Any], form: Format) -> None:
    nodes, used, all_of = it["nodes"], it["allocated"], it["capacity"]
    output(form, no_headers=False).one(
        it,
        [
            ("cluster", it["missing"] or it["warning"] or "takes jobs"),
            ("scheduling", _paused(it["queue"])),
            ("jobs", _counts(it["jobs"])),
            ("queue", _counts(it["queue"]["stats"])),
            (
                "nodes",
                f"{nodes['connected']} of {nodes['approved']} connected"
                + (f", {nodes['lost']} lost" if nodes["lost"] else "")
                + (f", {nodes['draining']} draining" if nodes["draining"] else "")
                + (f", {nodes['degraded']} degraded" if nodes["degraded"] else "")
                + (
                    f", {nodes['waiting_for_approval']} wait for approval"
                    if nodes["waiting_for_approval"]
                    else ""
                ),
            ),
            ("cpu", f"{cores(used['cpu'])} of {cores(all_of['cpu'])}"),
            ("memory", f"{size(used['memory'])} of {size(all_of['memory'])}"),
        ],
        name="missing",
    )


def _show_queue(it: dict[str, Any], form: Format) -> None:
    stats = it["stats"]
    lines: list[tuple[str, object]] = [("scheduling", _paused(it))]
    lines += [(name, value) for name, value in stats.items() if isinstance(value, int)]
    lines += [("oldest", span(stats["oldest"])), ("rate", f"{stats['rate']:.1f}/s")]
    output(form, no_headers=False).one(it, lines, name="paused")


def _paused(queue: dict[str, Any]) -> str:
    if not queue["paused"]:
        return "goes on"
    return f"paused by {person(queue['paused_by'])}: {queue['paused_reason']}"


def _counts(counts: dict[str, Any]) -> str:
    found = [f"{n} {word}" for word, n in counts.items() if isinstance(n, int) and n]
    return ", ".join(found) or "none"


def _print_events(
    events: list[dict[str, Any]], form: Format, utc: bool | None, *, lines: bool
) -> None:
    if form is Format.JSON and lines:
        import json

        for event in events:
            say(json.dumps(event))
        return
    if form not in (Format.TABLE, Format.WIDE):
        output(form, no_headers=True).table(events, (), name="id")
        return
    for event in events:
        # One below the other they are compared, so at a glance a time of day is enough.
        exact = form is Format.WIDE or utc is not None
        at = Instant(event["at"]).exactly(utc) if exact else f"{event['at'][11:19]}Z"
        say(f"{at}  {event['topic']:<9}  {sanitise.line(event['message'])}")


def _asked() -> str:
    if sys.stdin is not None and sys.stdin.isatty():
        from getpass import getpass

        tell("An operator makes tokens with: manage.py token create")
        token = getpass("API token: ")
    else:
        token = sys.stdin.readline() if sys.stdin is not None else ""
    token = token.strip()
    if not token.isascii() or not token.startswith("at_"):
        raise Failure("That is not an API token.", code=Code.USAGE, hint="One begins with at_.")
    return token
