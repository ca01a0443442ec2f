"""Around all our views: whom we answer to, and in how many threads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from django.core.exceptions import DisallowedHost, SuspiciousOperation
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.decorators import sync_only_middleware

from orchestrator.api.application import refuse
from orchestrator.api.problems import Problem

logger = logging.getLogger(__name__)

Answer = Callable[[HttpRequest], HttpResponseBase]


@sync_only_middleware
def known_hosts(get_response: Answer) -> Answer:
    """Refuse a request for a host that is not ours, naming the host and the setting that adds it.

    Django's own refusal is a bare page and a traceback, and names a setting that is not ours.
    """

    def refuse_unknown(request: HttpRequest) -> HttpResponseBase:
        try:
            request.get_host()
        except DisallowedHost:
            return _unknown_host(request)
        return get_response(request)

    return refuse_unknown


@sync_only_middleware
def no_nul_in_the_administration(get_response: Answer) -> Answer:
    """Refuse what names a row or a filter of the administration with NUL, which no column holds.

    Django's forms refuse it, and its lists and keys ask the database.
    """

    def refuse_nul(request: HttpRequest) -> HttpResponseBase:
        if request.path.startswith("/admin/") and any("\0" in it for it in _names(request)):
            raise SuspiciousOperation("NUL in the name of a row or a filter")
        return get_response(request)

    return refuse_nul


@sync_only_middleware
def one_thread_hop(get_response: Answer) -> Answer:
    """Answer requests in one thread, middleware and view alike; stands last.

    Between async handlers Django sends each middleware's hooks to a thread by themselves, twenty
    hops a request.  With a sync one at the end the whole chain runs in one thread, after one hop.
    """
    return get_response


def _names(request: HttpRequest) -> Iterator[str]:
    yield request.path
    for name, texts in request.GET.lists():
        yield from (name, *texts)
    yield from request.POST.getlist("_selected_action")


def _unknown_host(request: HttpRequest) -> HttpResponse:
    detail = f"Muster does not answer to the host {request.META.get('HTTP_HOST', '')[:253]!r}."
    hint = "If it should, add the host to MUSTER_HOSTS in the environment of the web process."
    logger.warning("%s %s", detail, hint)
    if request.path.startswith("/api/"):
        return refuse(request, Problem(400, "unknown-host", detail, hint=hint))
    return HttpResponse(f"{detail}\n{hint}\n", status=400, content_type="text/plain; charset=utf-8")
