"""`manage.py down`: the cluster of `make up` ends, and so do its tasks."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from orchestrator.server import running_cluster


class Command(BaseCommand):
    help = "Stop the cluster that runs here, with its tasks."
    requires_system_checks = ()

    def handle(self, *_arguments: Any, **_options: Any) -> None:
        var = Path(settings.VAR)
        try:
            ended = running_cluster.end_cluster(var)
            number = running_cluster.stop_tasks(var / "agents")
        except running_cluster.StillThere as why:
            raise CommandError(str(why)) from None
        cluster = "The cluster has ended" if ended else "No cluster ran"
        tasks = {0: "no task was left", 1: "one task was stopped"}
        self.stdout.write(f"{cluster}; {tasks.get(number, f'{number} tasks were stopped')}.")
        if number:
            self.stdout.write("What was stopped runs again at the next `make up`.")
