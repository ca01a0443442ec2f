"""`python -m tests.nodes.served SOCKET`: a consumer behind a real Daphne, on the test database."""

import os
import sys

import django
from django.conf import settings

settings.DATABASES["default"]["NAME"] = os.environ["MUSTER_TEST_DATABASE"]
django.setup()

from nodes import close_reasons  # noqa: E402
from nodes.consumers import NodeConsumer  # noqa: E402
from orchestrator.management.commands.web import FLAGS  # noqa: E402
from orchestrator.server.web_server import WebCommandLine  # noqa: E402
from tests.nodes.links import Above  # noqa: E402

application = NodeConsumer.as_asgi(callbacks=Above().callbacks())

if __name__ == "__main__":
    close_reasons.tell()
    WebCommandLine().run([*FLAGS, "-u", sys.argv[1], f"{__spec__.name}:application"])
