"""`muster node`: listed, judged, labelled, drained, released, removed, invited."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchestrator.explain.formatting import cores, size

from .client import segment
from .failures import Code, Failure
from .following import repeated, show_list
from .options import (
    AsFormat,
    InUtc,
    Most,
    NoHeaders,
    Quiet,
    Reason,
    Reference,
    Watching,
    client,
    output,
    seconds,
)
from .output import Column, Format, Instant, Output, Row, labels

app = typer.Typer(help="List, approve, label, drain and remove nodes.", no_args_is_help=True)

_COLUMNS = (
    Column("NAME", lambda it: it["name"]),
    Column("APPROVAL", lambda it: it["approval"]),
    Column("CONNECTION", lambda it: it["connection"]),
    Column("CPU", lambda it: _used(it, "cpu", cores)),
    Column("MEMORY", lambda it: _used(it, "memory", size)),
    Column("DISK", lambda it: _used(it, "disk", size), wide=True),
    Column("RUNNING", lambda it: it["running"]),
    Column("SEEN", lambda it: Instant(it["seen_at"])),
    Column("ID", lambda it: it["id"], wide=True),
    Column("LABELS", lambda it: labels(it["labels"]), wide=True),
    Column("WHAT", lambda it: it["sentence"]),
)


@app.command("list")
def list_nodes(
    context: typer.Context,
    approval: Annotated[str, typer.Option(help="only pending, approved or rejected ones")] = "",
    form: AsFormat = Format.TABLE,
    no_headers: NoHeaders = False,
    quiet: Quiet = False,
    watch: Watching = None,
    limit: Most = 500,
    utc: InUtc = None,
) -> None:
    """All nodes, by name."""
    out = output(form, no_headers, quiet, utc)
    show_list(context, "nodes", out, _COLUMNS, watch=watch, most=limit, approval=approval)


@app.command()
def show(
    context: typer.Context,
    node: Reference,
    form: AsFormat = Format.TABLE,
    watch: Watching = None,
    utc: InUtc = None,
) -> None:
    """One node."""
    with client(context) as api:
        path, out = f"nodes/{segment(node)}", output(form, utc=utc)
        repeated(lambda: _show(api.get(path), out), watch)


@app.command()
def approve(
    context: typer.Context,
    node: Reference,
    label: Annotated[
        list[str], typer.Option(metavar="KEY=VALUE", help="given to the node; repeatable")
    ] = [],  # noqa: B006 - typer copies it
    form: AsFormat = Format.TABLE,
) -> None:
    """Let a node take part."""
    _change(context, node, "approve", form, labels=_labels(label))


@app.command("label")
def set_labels(
    context: typer.Context,
    node: Reference,
    labels: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE|KEY-", help="given, or taken away")
    ],
    form: AsFormat = Format.TABLE,
) -> None:
    """Give a node labels, or take them away: `muster node label web-1 pool=prod spot-`."""
    gone = [it for it in labels if "=" not in it and it.endswith("-")]
    given = _labels([it for it in labels if it not in gone])
    wanted = {**dict.fromkeys(it.removesuffix("-") for it in gone), **given}
    _change(context, node, "labels", form, labels=wanted)


@app.command()
def reject(context: typer.Context, node: Reference, form: AsFormat = Format.TABLE) -> None:
    """Give a node no work; what runs on it is lost."""
    _change(context, node, "reject", form)


@app.command()
def release(context: typer.Context, node: Reference, form: AsFormat = Format.TABLE) -> None:
    """End a node's quarantine, once one of its two agents is stopped."""
    _change(context, node, "release", form)


@app.command()
def remove(context: typer.Context, node: Reference, form: AsFormat = Format.TABLE) -> None:
    """Remove a node on which nothing runs, by name or whole id; its name is free afterwards."""
    with client(context) as api:
        done = api.delete(f"nodes/{segment(node)}")
    _say_done(done, form)


@app.command()
def drain(
    context: typer.Context,
    node: Reference,
    off: Annotated[bool, typer.Option("--off", help="end the drain")] = False,
    form: AsFormat = Format.TABLE,
) -> None:
    """Empty a node: no new work; what runs may finish."""
    _change(context, node, "drain", form, drain=not off)


@app.command()
def eligible(
    context: typer.Context,
    node: Reference,
    off: Annotated[bool, typer.Option("--off", help="no new work; what it has goes on")] = False,
    reason: Reason = "",
    form: AsFormat = Format.TABLE,
) -> None:
    """Let a node get new work, or not."""
    _change(context, node, "eligible", form, eligible=not off, reason=reason)


@app.command()
def token(
    context: typer.Context,
    uses: Annotated[int, typer.Option(min=1, help="how many nodes may join with it")] = 1,
    expires_in: Annotated[str, typer.Option(help="how long it is good, as 30m or 1d")] = "1h",
    approve: Annotated[
        bool, typer.Option("--approve", help="those who join with it are approved at once")
    ] = False,
    label: Annotated[
        list[str], typer.Option(metavar="KEY=VALUE", help="given to every node that joins with it")
    ] = [],  # noqa: B006 - typer copies it
    form: AsFormat = Format.TABLE,
) -> None:
    """Make a token that new nodes trade for a credential; it is printed this once."""
    invitation = {
        "uses": uses,
        "expires_in": int(seconds(expires_in) or 0),
        "auto_approve": approve,
        "labels": _labels(label),
    }
    with client(context) as api:
        made = api.post("nodes/join-tokens", invitation)
    output(form).done(made, made["token"], name="token")


def _labels(texts: list[str]) -> dict[str, str]:
    pairs = {text: text.partition("=") for text in texts}
    for text, (key, sign, _) in pairs.items():
        if not key or not sign:
            said = f"{text!r} is no label."
            raise Failure(said, code=Code.USAGE, hint="Write it as KEY=VALUE, for example zone=a.")
    return {key: value for key, _, value in pairs.values()}


def _change(context: typer.Context, ref: str, verb: str, form: Format, **said: Any) -> None:
    with client(context) as api:
        done = api.post(f"nodes/{segment(ref)}/{verb}", said)
    _say_done(done, form)


def _say_done(node: Row, form: Format) -> None:
    output(form).done(node, f"{node['name']} {node['sentence']}")


def _show(it: dict[str, Any], out: Output) -> None:
    out.one(
        it,
        [
            ("name", it["name"]),
            ("id", it["id"]),
            ("state", it["sentence"]),
            ("approval", it["approval"]),
            ("connection", it["connection"]),
            ("seen", Instant(it["seen_at"])),
            ("cpu", _used(it, "cpu", cores)),
            ("memory", _used(it, "memory", size)),
            ("disk", _used(it, "disk", size)),
            ("gpu", _used(it, "gpu", str)),
            ("running", it["running"]),
            ("labels", labels(it["labels"])),
            ("attributes", labels(it["attributes"])),
        ],
    )


def _used(node: Row, dimension: str, show: Any) -> str:
    return f"{show(node['allocated'][dimension])}/{show(node['capacity'][dimension])}"
