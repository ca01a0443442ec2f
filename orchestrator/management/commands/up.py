"""`manage.py up`: everything on this machine, from an empty directory to jobs that run."""

import logging
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from orchestrator.server.local_cluster import CannotRun, LocalCluster


class Command(BaseCommand):
    help = "Run everything here: database, web, workers, local agents and a demonstration."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--agents", type=int, default=3, help="local nodes (default: 3)")
        parser.add_argument("--no-demo", action="store_true", help="submit no demonstration jobs")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        # Its own lines are for people; what the parts log goes to their files.
        logging.getLogger().setLevel(logging.WARNING)
        if options["agents"] < 0:
            raise CommandError(f"--agents is {options['agents']}; say a whole number from 0 up.")
        cluster = LocalCluster(
            host=options["host"],
            port=options["port"],
            agents=options["agents"],
            demo=not options["no_demo"],
            output=self.stdout,
        )
        try:
            cluster.run()
        except CannotRun as why:
            raise CommandError(str(why)) from None
