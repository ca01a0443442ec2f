"""`muster status`: the cluster on one screen."""

from __future__ import annotations

from typing import Any

import typer

from orchestrator.explain.formatting import cores, size

from .following import repeated
from .options import AsFormat, Watching, client, output
from .output import Format
from .queue import counts, paused


def show(context: typer.Context, form: AsFormat = Format.TABLE, watch: Watching = None) -> None:
    """The cluster on one screen."""
    with client(context) as api:
        repeated(lambda: _show(api.get("status"), form), watch)


def _show(it: dict[str, Any], form: Format) -> None:
    nodes, used, all_of = it["nodes"], it["allocated"], it["capacity"]
    output(form, no_headers=False).one(
        it,
        [
            ("cluster", it["missing"] or it["warning"] or "takes jobs"),
            ("scheduling", paused(it["queue"])),
            ("jobs", counts(it["jobs"])),
            ("queue", counts(it["queue"]["stats"])),
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
