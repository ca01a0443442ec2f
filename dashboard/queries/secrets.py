"""Secrets, without their values."""

from __future__ import annotations

from orchestrator import endpoint
from orchestrator.access.sight import Sight
from orchestrator.models import Secret

from .paging import Part, part

MOST = 200


def listed(sight: Sight) -> Part[Secret]:
    """Those in *sight* by name, each with the jobs that use it."""
    rows = endpoint.with_users(Secret.objects.defer("sealed"))
    return part(sight.of(rows).order_by("name", "namespace"), MOST)
