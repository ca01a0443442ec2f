"""`manage.py agent`: the agent is a program of its own, started from here for convenience."""

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Be a node: `python -m nodes.agent` with the same arguments (see its --help)."
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Hand every argument over as it stands; the agent has its own parser and no Django."""
        os.execv(sys.executable, [sys.executable, "-m", "nodes.agent", *argv[2:]])  # noqa: S606

    def handle(self, *_arguments: Any, **_options: Any) -> None:
        self.run_from_argv(sys.argv)
