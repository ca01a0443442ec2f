"""`python -m tests.cli.served PORT`: what `manage.py web` serves, on the test database."""

import os
import sys

import django
from django.conf import settings

settings.DATABASES["default"]["NAME"] = os.environ["MUSTER_TEST_DATABASE"]
django.setup()

from nodes import close_reasons  # noqa: E402
from orchestrator.management.commands.web import FLAGS  # noqa: E402
from orchestrator.server.web_server import WebCommandLine  # noqa: E402

if __name__ == "__main__":
    close_reasons.tell()
    binding = ("--bind", "127.0.0.1", "--port", sys.argv[1])
    WebCommandLine().run([*FLAGS, *binding, "orchestrator.server.asgi:application"])
