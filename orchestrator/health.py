"""Is this process alive, and does the cluster take jobs?"""

import platform
from datetime import timedelta

import psutil
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models.functions import Now
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from orchestrator.models import WorkerProcess

SILENCE = timedelta(seconds=30)
"""A worker that said nothing for this long is not counted on."""

_migrated = False
"""Migrations are never taken back under a running server, so a yes is kept."""


@require_safe
@never_cache
def healthz(_request: HttpRequest) -> JsonResponse:
    """200 as long as this process answers at all; asks nobody else."""
    return JsonResponse({"status": "ok"})


@require_safe
@never_cache
def readyz(_request: HttpRequest) -> JsonResponse:
    """200 from the moment the cluster takes jobs; before that 503 and what is missing."""
    missing = what_is_missing()
    if missing is None:
        return JsonResponse({"status": "ready"})
    return JsonResponse({"status": "not ready", "missing": missing}, status=503)


def what_is_missing() -> str | None:
    """Say what keeps the cluster from taking jobs, or None when nothing does."""
    try:
        if not _is_migrated():
            return "The database has migrations to apply: manage.py migrate."
        if not _a_worker_lives():
            return "No worker has been heard of lately: manage.py worker."
    except DatabaseError:
        return "The database does not answer."
    return None


def _is_migrated() -> bool:
    global _migrated  # noqa: PLW0603 - see its docstring
    if not _migrated:
        executor = MigrationExecutor(connection)
        _migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    return _migrated


def _a_worker_lives() -> bool:
    heard_of = WorkerProcess.objects.filter(seen_at__gt=Now() - SILENCE)
    here = platform.node()
    # The row of a worker that was killed a moment ago still looks young; its process tells.
    return any(
        host != here or psutil.pid_exists(pid) for host, pid in heard_of.values_list("host", "pid")
    )
