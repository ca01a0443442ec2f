"""What is answered when nothing can be shown: pages, problems, and the cure where one is known."""

from __future__ import annotations

import sys

from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string

from orchestrator.api import problems
from orchestrator.api.application import refuse
from orchestrator.endpoint.health import trouble_behind
from orchestrator.explain.database_errors import Trouble

POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'"


def server_error(request: HttpRequest) -> HttpResponse:
    """Say that something went wrong, or that the database is away when that is what happened."""
    error = sys.exc_info()[1]
    trouble = None if error is None else trouble_behind(error)
    if trouble is not None:
        return unavailable(request, trouble)
    return HttpResponse(render_to_string("500.html"), status=500)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Say that the request makes no sense, or is too large."""
    if isinstance(exception, RequestDataTooBig | TooManyFieldsSent):
        return _refused(request, 413, "This is larger than any form may be: shorten it.")
    return _refused(request, 400, "This request makes no sense here: go back and try again.")


def no_page(_request: HttpRequest) -> HttpResponse:
    """Say that there is nothing."""
    raise Http404("There is nothing at this address.")


def no_csrf_token(request: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001
    """Say that a form does not come from a page of ours that belongs to this session."""
    said = "This was not sent from a page of this session: load the page again and repeat it."
    return _refused(request, 403, said)


def _refused(request: HttpRequest, status: int, said: str) -> HttpResponse:
    if request.headers.get("X-Requested-With") == "muster":
        return JsonResponse({"message": said}, status=status)
    return HttpResponse(render_to_string("400.html", {"said": said}), status=status)


def unavailable(request: HttpRequest, trouble: Trouble) -> HttpResponse:
    """Say what is the matter, in the form that whoever asks understands; needs no database.

    A page looks again by itself; one that is open shows the sentence as its banner.
    """
    if request.path.startswith("/api/"):
        return refuse(request, problems.unavailable(request, trouble))
    shown: dict[str, object] = {"trouble": trouble}
    if "regions" in request.GET:
        answer = HttpResponse(render_to_string("parts/trouble.html", shown), status=503)
    else:
        shown |= {"again": request.method in {"GET", "HEAD"}}
        answer = HttpResponse(render_to_string("503.html", shown), status=503)
    answer["Retry-After"] = "2"
    answer["Cache-Control"] = "no-store"
    answer["Content-Security-Policy"] = POLICY
    answer["X-Content-Type-Options"] = "nosniff"
    return answer
