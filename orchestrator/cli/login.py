"""`muster login`: how to sign in."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import config
from .client import Client
from .failures import Code, Failure
from .options import Call
from .output import say, tell


def login(
    context: typer.Context,
    server: Annotated[str, typer.Argument(help="address, as http://127.0.0.1:8000")] = "",
) -> None:
    """Keep the address and a token for later calls; the token is asked for, or read from stdin."""
    call: Call = context.obj
    address = config.resolve(server or call.server, None, {}).server if server else None
    address = address or call.settings().server
    token = _ask_for_token()
    with Client(config.Settings(address, token, "", "standard input")) as api:
        api.get("jobs", limit=1)
    file = config.config_file()
    config.keep(address, token, file)
    say(f"Signed in at {address}; kept in {file}.")


def _ask_for_token() -> str:
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
