"""Prepare an empty database: `python -m tests.chaos.prepare NODES` prints the secrets as JSON."""

import json
import os
import sys
from datetime import timedelta

import django
from django.core.management import call_command


def main(nodes: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator.server.settings")
    django.setup()
    call_command("migrate", verbosity=0, interactive=False)

    from django.contrib.auth.models import User

    from nodes.membership import create_join_token
    from orchestrator.access import tokens

    admin = User.objects.create_superuser("admin", password=None)
    secrets = {
        "api": tokens.create(
            user=admin, name="chaos", scopes=["admin"], expires_in=timedelta(days=2)
        ),
        "join": create_join_token(created_by=admin, uses=nodes, auto_approve=True),
    }
    sys.stdout.write(json.dumps(secrets))


if __name__ == "__main__":
    main(int(sys.argv[1]))
