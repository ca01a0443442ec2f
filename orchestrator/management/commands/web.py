"""`manage.py web`: one process that serves pages, the API and the nodes' sessions."""

import logging
import resource
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from orchestrator.server.environment import EX_CONFIG
from orchestrator.server.listen_address import CannotListen, raise_unless_address

logger = logging.getLogger(__name__)

DEBUGGING_AT = ("127.0.0.1", "::1", "localhost")

LARGEST_MESSAGE = 256 * 1024

MOST_FILES = 65_536
"""Open files beyond which no more are asked for: one is a connection, and memory ends before."""

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
        from nodes import close_reasons
        from orchestrator.server.web_server import WebCommandLine

        try:
            raise_unless_address(options["host"], options["port"])
        except CannotListen as why:
            raise CommandError(str(why)) from None
        if settings.DEBUG and options["host"] not in DEBUGGING_AT:
            self.stderr.write(
                f"MUSTER_DEBUG shows settings and code to whoever meets an error, and others reach "
                f"{options['host']}: debug at 127.0.0.1."
            )
            raise SystemExit(EX_CONFIG)
        close_reasons.tell()
        allow_many_connections()
        tell_of_refused_connections()
        binding = ("--bind", options["host"], "--port", str(options["port"]))
        WebCommandLine().run([*FLAGS, *binding, "orchestrator.server.asgi:application"])


def allow_many_connections() -> None:
    """Raise the limit of open files, of which each connection is one, as far as that is ours."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def tell_of_refused_connections() -> None:
    """Log, once a second, that connections are closed because no more files may be opened.

    Twisted closes them by itself and goes on; what it logs about that goes nowhere.
    """
    from twisted.logger import LogEvent, globalLogPublisher

    told_at = 0.0

    def hear(event: LogEvent) -> None:
        nonlocal told_at
        said = f"{event.get('log_format', '')}{event.get('acceptError', '')}"
        if ("EMFILE" not in said and "ENFILE" not in said) or time.monotonic() - told_at < 1.0:
            return
        told_at = time.monotonic()
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        logger.error(
            "connections are refused: this process may open no more than %d files; "
            "raise the limit (ulimit -n, LimitNOFILE=) and start it again",
            most,
        )

    globalLogPublisher.addObserver(hear)  # type: ignore[arg-type]  # Any function will do.
