"""The agent's command line, and what of it the environment may say."""

from __future__ import annotations

import argparse
import os
import re
import socket
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from ..protocol.messages import ISOLATION
from . import __version__, machine, walls

T = TypeVar("T")
LEVELS = ("debug", "info", "warning")
_LOGS = "keep so much output of tasks that have ended (10GiB, or a tenth of the disk if less)"


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options, each from the command line, else from ``MUSTER_AGENT_…``, else by default."""
    parser = argparse.ArgumentParser(
        prog="muster-agent",
        description="Offer this machine to a Muster orchestrator and run what it orders.",
        epilog="Every option may be given as MUSTER_AGENT_<OPTION> in the environment instead; "
        "several labels are separated by commas there.",
    )
    env = {
        name.removeprefix("MUSTER_AGENT_").lower(): value
        for name, value in os.environ.items()
        if name.startswith("MUSTER_AGENT_")
    }
    add = parser.add_argument
    add(
        "--server", default=env.get("server", "http://127.0.0.1:8000"), help="address (%(default)s)"
    )
    add(
        "--state-dir",
        type=Path,
        default=Path(env.get("state_dir", "/var/lib/muster-agent")),
        help="where the agent keeps its ledger, logs and credential (%(default)s)",
    )
    add("--name", default=env.get("name", socket.gethostname()), help="of this node (%(default)s)")
    add("--join-token-file", type=Path, default=env.get("join_token_file"), help="for enrolment")
    add("--label", action="append", metavar="KEY=VALUE", help="seen as node.KEY; repeatable")
    for option, read, unit, what in (
        ("cpu", machine.count, "MILLICORES", "offer this much"),
        ("memory", machine.amount, "BYTES", "or 512MiB"),
        ("disk", machine.amount, "BYTES", "or 512MiB"),
        ("gpu", machine.count, "DEVICES", "offer this many"),
        ("logs", machine.amount, "BYTES", _LOGS),
    ):
        add(f"--{option}", type=_said(read), metavar=unit, default=env.get(option), help=what)
    _add_walls(add, env)
    add("--log-level", default=env.get("log_level", "info"), choices=LEVELS)
    add("--version", action="version", version=f"muster-agent {__version__}")
    options = parser.parse_args(arguments)
    for name, several in (
        ("run_as", options.run_as),
        ("share", options.share),
        ("hide", options.hide),
    ):
        setattr(options, name, several or [it for it in env.get(name, "").split(",") if it])
    known = {*vars(options), "join_token"}
    for name in sorted(env.keys() - known):
        said = f"MUSTER_AGENT_{name.upper()} in the environment is no option of the agent"
        near = get_close_matches(name, known, n=1)
        parser.error(f"{said}; did you mean MUSTER_AGENT_{near[0].upper()}?" if near else said)
    for name, words in (("log_level", LEVELS), ("isolation", (*ISOLATION, walls.AUTO))):
        if (said := getattr(options, name)) not in words:  # A default is not checked.
            say = " or ".join(words)
            parser.error(f"MUSTER_AGENT_{name.upper()} is {said!r}; say {say}")
    pairs = options.label or [pair for pair in env.get("label", "").split(",") if pair]
    if wrong := [pair for pair in pairs if "=" not in pair]:
        parser.error(f"--label {wrong[0]}: write it as key=value")
    if not options.server.startswith(("http://", "https://")):
        parser.error(f"--server {options.server}: write it as http://… or https://…")
    options.labels = dict(pair.split("=", 1) for pair in pairs)
    options.server = options.server.rstrip("/")
    options.state_dir = options.state_dir.absolute()
    return options


def _add_walls(add: Callable[..., Any], env: Mapping[str, str]) -> None:
    """The options about walls around tasks."""
    add(
        "--isolation",
        default=env.get("isolation", walls.AUTO),
        choices=(*ISOLATION, walls.AUTO),
        help="how far tasks are walled off: %(choices)s (the best that works here)",
    )
    add(
        "--users",
        type=_said(_user_range),
        metavar="FIRST-LAST",
        default=env.get("users", f"{walls.USERS.start}-{walls.USERS.stop - 1}"),
        help="the users that tasks may be, each its own, if the agent is root (%(default)s)",
    )
    add("--run-as", action="append", metavar="USER", help="jobs may name this user; repeatable")
    add(
        "--processes",
        type=_said(machine.count),
        metavar="COUNT",
        default=env.get("processes", str(walls.PROCESSES)),
        help="of one task, at most (%(default)s)",
    )
    add(
        "--scratch",
        type=_said(machine.amount),
        metavar="BYTES",
        default=env.get("scratch", "1GiB"),
        help="of the disk for a task that asks for none (%(default)s)",
    )
    add("--share", action="append", metavar="PATH[:rw]", help="let sandboxes see, or write, this")
    add("--hide", action="append", metavar="PATH", help="let no sandbox see this; repeatable")


def _user_range(text: str) -> range:
    """The users that *text* says, as ``700000-765535``; raises ValueError."""
    match = re.fullmatch(r"(\d{1,10})-(\d{1,10})", text, re.ASCII)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1000 <= first <= last < 2**32 - 2:
        raise ValueError(f"{text!r} is no range of users; write 700000-765535, from 1000 on")
    return range(first, last + 1)


def _said(read: Callable[[str], T]) -> Callable[[str], T]:
    """*read*, with its own sentence about what it cannot read."""

    def said(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return said
