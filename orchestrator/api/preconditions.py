"""Conditions of changes (RFC 9110, 13.1): only if it is as the caller has seen it.

The tag of a job begins with what people have asked of it, its *intent*, and goes on with all that
is shown.  ``If-Match`` compares the intent alone: nobody has changed a job that merely runs.
"""

from __future__ import annotations

from collections.abc import Collection

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.http import parse_etags

from orchestrator.models import Job

from .problems import Problem
from .responses import short

CONDITIONS = ("If-Match", "If-None-Match")


def refuse_others(request: HttpRequest, honoured: Collection[str]) -> None:
    """Raise Problem for a condition that nobody would look at: it must not go unheard."""
    for header in CONDITIONS:
        if header in request.headers and header not in honoured:
            raise _unsupported(f"{header} means nothing here.", f"Leave {header} out.")


def intent(job: Job) -> str:
    """What people have asked of *job*: it changes when, and only when, somebody changes that."""
    return f"{short(job.pk)}-i{job.intent_rev}"


def require_seen(request: HttpRequest, jobs: QuerySet[Job], name: str) -> None:
    """Raise Problem unless the one of *jobs* is as If-Match says; locks it until then and after."""
    condition = request.headers.get("If-Match")
    if condition is None:
        return
    job = jobs.select_for_update(of=("self",), no_key=True).first()
    if job is not None and _names(condition, job):
        return
    raise Problem(
        412,
        "precondition-failed",
        f"There is no job {name}." if job is None else f"Somebody has changed the job {job.name}.",
        hint="Read it again, and decide again.",
        current_rev=None if job is None else job.intent_rev,
    )


def creates_only(request: HttpRequest) -> bool:
    """Whether If-None-Match says that there must be no such job yet."""
    condition = request.headers.get("If-None-Match")
    if condition is not None and condition.strip() != "*":
        raise _unsupported(
            "If-None-Match takes a tag only when something is read.",
            "Send `If-None-Match: *` to create only, or `If-Match` with the tag to update only.",
        )
    return condition is not None


def _names(condition: str, job: Job) -> bool:
    """Whether *condition* has a strong tag of what *job* is asked to be."""
    tags = parse_etags(condition)
    return tags == ["*"] or any(tag.startswith(f'"{intent(job)}.') for tag in tags)


def _unsupported(detail: str, hint: str) -> Problem:
    return Problem(400, "condition-unsupported", detail, hint=hint)
