"""Around all our views: whom we answer to, and in how many threads."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator

from django.conf import settings
from django.core.exceptions import DisallowedHost, SuspiciousOperation
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.decorators import sync_only_middleware

from orchestrator.access import limits, sessions
from orchestrator.api.application import refuse
from orchestrator.api.problems import Problem
from orchestrator.explain.errors import TooManyRequests

logger = logging.getLogger(__name__)

Answer = Callable[[HttpRequest], HttpResponseBase]


@sync_only_middleware
def known_hosts(get_response: Answer) -> Answer:
    """Refuse a request for a host that is not ours, naming the host and the setting that adds it.

    Django's own refusal is a bare page and a traceback, and names a setting that is not ours.
    Stands first: whoever redirects asks for the host, too.
    """

    def refuse_unknown(request: HttpRequest) -> HttpResponseBase:
        try:
            request.get_host()
        except DisallowedHost:
            answer = _unknown_host(request)
            answer["X-Content-Type-Options"] = "nosniff"
            return answer
        return get_response(request)

    return refuse_unknown


@sync_only_middleware
def nothing_hidden(get_response: Answer) -> Answer:
    """Name control characters in pages, and those that turn text around: nobody would see them."""

    def answer(request: HttpRequest) -> HttpResponseBase:
        made = get_response(request)
        if isinstance(made, HttpResponse) and made.get("Content-Type", "").startswith("text/html"):
            unusual = made.content.translate(None, _ORDINARY)  # Most of a page is not.
            if _HIDDEN.search(unusual.decode(made.charset, "replace")):
                text = made.content.decode(made.charset, "replace")
                made.content = _HIDDEN.sub(lambda it: f"[U+{ord(it[0]):04X}]", text)
        return made

    return answer


_ORDINARY = bytes([*b"\t\n\r", *range(0x20, 0x7F)])
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)


@sync_only_middleware
def no_floods(get_response: Answer) -> Answer:
    """Refuse who asks for pages more often than anybody may; the API counts its callers itself."""

    def answer(request: HttpRequest) -> HttpResponseBase:
        is_page = settings.SESSION_COOKIE_NAME in request.COOKIES
        if is_page and not request.path.startswith("/api/") and request.user.is_authenticated:
            try:
                limits.requests.count(request.user.pk, request.user.get_username())
            except TooManyRequests as error:
                text, later = f"{error} {error.hint}\n", {"Retry-After": "1"}
                kind = "text/plain; charset=utf-8"
                return HttpResponse(text, status=429, content_type=kind, headers=later)
        return get_response(request)

    return answer


@sync_only_middleware
def sliding_sessions(get_response: Answer) -> Answer:
    """Begin the hours of a session anew with what a person does; a page that refreshes is none."""

    def answer(request: HttpRequest) -> HttpResponseBase:
        made = get_response(request)
        if request.session.accessed and "regions" not in request.GET:
            sessions.slide(request.session)
        return made

    return answer


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
