"""What `manage.py web` serves, on the test database, in a process of its own."""

import os
import socket
import subprocess
import sys
from typing import Any

import django
from django.conf import settings
from django.db import connection

from orchestrator.server.environment import HOME


def start(
    *binding: str,
    application: str = "orchestrator.server.asgi:application",
    environment: dict[str, str] | None = None,
    **more: Any,
) -> subprocess.Popen[bytes]:
    """Begin to serve *application* where *binding* says, in Daphne's words."""
    environ = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "orchestrator.server.settings",
        "MUSTER_TEST_DATABASE": connection.settings_dict["NAME"],
        "MUSTER_ROLE": "web",
        **(environment or {}),
    }
    command = [sys.executable, "-m", "tests.served", *binding, application]
    return subprocess.Popen(command, cwd=HOME, env=environ, **more)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    settings.DATABASES["default"]["NAME"] = os.environ["MUSTER_TEST_DATABASE"]
    django.setup()

    from nodes import close_reasons
    from orchestrator.management.commands.web import FLAGS
    from orchestrator.server.web_server import WebCommandLine, WebServer

    for patience in ("head_within", "body_within"):
        if within := os.environ.get(f"MUSTER_TEST_{patience.upper()}"):
            setattr(WebServer, patience, float(within))

    close_reasons.tell()
    WebCommandLine().run([*FLAGS, *sys.argv[1:]])
