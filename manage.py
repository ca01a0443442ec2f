#!/usr/bin/env python3
"""Muster's commands: `manage.py up` starts everything, `manage.py help` lists the others."""

import os
import sys
from contextlib import AbstractContextManager, nullcontext

WITHOUT_DATABASE = {"up", "down", "agent", "help", "version", "--help", "-h", "--version"}
"""Commands that need no database of ours, or that run it themselves."""

ON_A_RUNNING_DATABASE = {"web", "worker"}
"""Commands that stay, each one of several: none of them may be the one that runs the database."""


def main(arguments: list[str]) -> None:
    """Run the command that *arguments* name, with a database where it needs one."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator.server.settings")
    command = arguments[1] if len(arguments) > 1 else "help"
    if command in ON_A_RUNNING_DATABASE:
        os.environ["MUSTER_ROLE"] = command

    from django.core.management import execute_from_command_line

    from orchestrator.server import private_files
    from orchestrator.server.postgres import PostgresError

    if command == "up" or command in ON_A_RUNNING_DATABASE:
        os.umask(private_files.UMASK)
    try:
        with _database_for(command, arguments):
            execute_from_command_line(arguments)
    except PostgresError as why:
        sys.exit(f"muster: {why}")


def _database_for(command: str, arguments: list[str]) -> AbstractContextManager[object]:
    from orchestrator.server import postgres
    from orchestrator.server.settings import EMBEDDED

    asks_for_help = {"--help", "-h", "--version"} & set(arguments)
    if EMBEDDED is None or command in WITHOUT_DATABASE or asks_for_help:
        return nullcontext()
    if command in ON_A_RUNNING_DATABASE:
        if not postgres.is_running(EMBEDDED):
            raise postgres.PostgresError(
                f"`manage.py {command}` needs a database that runs, and none does in {EMBEDDED}. "
                "Start everything with `make up`, or set DATABASE_URL to a PostgreSQL of your own."
            )
        return nullcontext()
    return postgres.available(EMBEDDED)


if __name__ == "__main__":
    main(sys.argv)
