"""`manage.py worker`: the processes that evaluate jobs, and everything that time alone causes."""

from argparse import ArgumentParser
from functools import partial
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from orchestrator.server.environment import MOST_WORKERS


class Command(BaseCommand):
    help = "Evaluate jobs: a django-q2 cluster of workers, until SIGTERM or Ctrl-C."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--workers", type=int, help="worker processes (default: MUSTER_WORKERS)"
        )

    def handle(self, *_arguments: Any, **options: Any) -> None:
        asked = options["workers"]
        workers = settings.ENVIRONMENT.workers if asked is None else asked
        if not 1 <= workers <= MOST_WORKERS:
            said = f"--workers is {workers}; say a whole number from 1 to {MOST_WORKERS}."
            raise CommandError(said)

        from orchestrator import broker, worker
        from orchestrator.server.cluster import ipc
        from orchestrator.server.cluster.django_q import run
        from orchestrator.server.cluster.periodic import Chore
        from orchestrator.worker import housekeeping
        from orchestrator.worker.retention import Kept, Retention

        environment = settings.ENVIRONMENT
        retention = Retention(Kept.for_days(environment.keep_days, environment.keep_days_of))
        run(
            workers,
            begin=partial(worker.begin, ipc.stopping),
            end=worker.end,
            chores=(
                Chore(housekeeping.tick, 1.0),
                Chore(broker.sweep, 5.0),
                Chore(broker.unblock_overlooked, 60.0),
                Chore(broker.forget_orphans, 60.0),
                Chore(broker.forget_classes, 600.0),
                Chore(housekeeping.forget_join_tokens, 600.0),
                Chore(retention.delete_some, 5.0),
                Chore(retention.turn_weeks, 600.0),
                Chore(worker.release_leases_of_dead_workers, 1.0, everywhere=True),
                Chore(worker.delete_dead_workers, 10.0, everywhere=True),
            ),
        )
