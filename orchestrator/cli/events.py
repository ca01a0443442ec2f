"""`muster events`: what happens in the cluster, line by line."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any

import typer

from . import sanitise
from .following import patiently
from .options import AsFormat, InUtc, client, output
from .output import Format, Instant, say, tell

POLL = 1.0
MOST = 500
"""Events in one answer."""


def show(
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
        _print(page["items"], form, utc, lines=follow)
        if len(page["items"]) == limit < MOST and not follow:
            tell(f"The newest {limit}; --limit shows more, {MOST} at most.")
        while follow:
            if len(page["items"]) < MOST:  # What did not fit into one page is there already.
                time.sleep(POLL)
            page = patiently(partial(api.get, "events", cursor=page["cursor"], limit=MOST))
            # The first page may end later than its cursor, and never earlier.
            new = [it for it in page["items"] if it["id"] not in seen]
            _print(new, form, utc, lines=True)


def _print(events: list[dict[str, Any]], form: Format, utc: bool | None, *, lines: bool) -> None:
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
