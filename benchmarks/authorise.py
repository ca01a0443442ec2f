"""What does it cost to find out who calls, and whether they may?"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import django

from .stage import options, stage
from .table import Row, publish

NAMESPACES = 20
"""In each of which the user has a role, by one of her groups."""


def rows(chosen: argparse.Namespace) -> list[Row]:
    with stage(chosen, agents=0) as cluster:
        os.environ.update(cluster.environ, DJANGO_SETTINGS_MODULE="orchestrator.server.settings")
        django.setup()
        return [
            Row(
                f"authorisation of a request, {what}, p50",
                round(statistics.median(times) * 1000, 4),
                "ms",
                target,
                detail={"p99_ms": round(statistics.quantiles(times, n=100)[98] * 1000, 4)},
            )
            for (what, times), target in zip(
                _measured(chosen.requests).items(), (0.3, None), strict=True
            )
        ]


def _measured(requests: int) -> dict[str, list[float]]:
    from django.contrib.auth.models import Group, User
    from django.test import RequestFactory

    from orchestrator import access
    from orchestrator.access import tokens, users
    from orchestrator.api.authentication import SUBMIT
    from orchestrator.models import Namespace, RoleBinding

    user, group = User.objects.create_user("ana"), Group.objects.create(name="all")
    user.groups.add(group)
    for number in range(NAMESPACES):
        namespace = Namespace.objects.create(name=f"team-{number}")
        RoleBinding.objects.create(group=group, namespace=namespace, role="submitter")
    secret = tokens.create(user=user, name="it", scopes=["submit"], expires_in=timedelta(days=1))
    request = RequestFactory().post("/", headers={"Authorization": f"Bearer {secret}"})

    def authorise() -> None:
        access.require(SUBMIT(request).rights, "submit", "team-7")

    def anew() -> None:
        tokens._believed.clear()
        users.forget()
        authorise()

    anew()
    return {
        "as it is believed for seconds": _times(authorise, requests),
        "read anew": _times(anew, requests),
    }


def _times(ask: Callable[[], Any], requests: int) -> list[float]:
    times = []
    for _ in range(requests):
        began = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began)
    return times


if __name__ == "__main__":
    publish("authorise", rows(options(__doc__, requests=2_000)))
