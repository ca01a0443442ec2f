"""`manage.py web`: one process that serves pages, the API and the nodes' sessions."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

LARGEST_MESSAGE = 256 * 1024

FLAGS = (
    # An agent's session lasts for days; the default would end all of them together once a day.
    *("--websocket_timeout", "-1"),
    *("--websocket_connect_timeout", "5"),
    *("--websocket-max-message-size", str(LARGEST_MESSAGE)),
    *("--websocket-max-frame-size", str(LARGEST_MESSAGE)),
    *("--ping-interval", "15"),
    *("--ping-timeout", "15"),
    *("--application-close-timeout", "5"),
    "--no-server-name",
    *("--verbosity", "0"),
)


class Command(BaseCommand):
    help = "Serve pages, the HTTP API and the sessions of nodes (Daphne, one process)."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *_arguments: Any, **options: Any) -> None:
        from daphne.cli import CommandLineInterface

        from nodes import reasons

        reasons.tell()
        binding = ("--bind", options["host"], "--port", str(options["port"]))
        CommandLineInterface().run([*FLAGS, *binding, "orchestrator.asgi:application"])
