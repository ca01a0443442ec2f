"""The API as one thing: its routers, and the frame around every one of its views."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from functools import wraps
from typing import Any, cast

import structlog
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase, HttpResponseNotAllowed
from django.urls import URLPattern, URLResolver, path, re_path
from django.views.generic import RedirectView
from ninja import NinjaAPI, Swagger
from ninja.errors import HttpError

from . import (
    evaluations,
    events,
    executions,
    idempotency,
    jobs,
    logs,
    namespaces,
    nodes,
    openapi,
    problems,
    queue,
    secrets,
    status,
)
from .problems import Problem
from .responses import as_cached, head_of

View = Callable[..., HttpResponseBase]
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class _Api(NinjaAPI):
    """An API whose every answer, also to wrong addresses and methods, comes out of one frame."""

    def _get_urls(self) -> list[URLResolver | URLPattern]:
        root = path("", RedirectView.as_view(pattern_name=f"{self.urls_namespace}:openapi-view"))
        found = [root, *super()._get_urls(), re_path(r"^.*\Z", _no_such_address)]
        for pattern in found:
            if isinstance(pattern, URLPattern):
                pattern.callback = framed(pattern.callback)
        return found

    def get_openapi_schema(  # type: ignore[override]  # Ninja's own is a dictionary, too.
        self, *, path_prefix: str | None = None, path_params: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The document that our own operations make, not ninja's."""
        prefix = self.get_root_path(path_params or {}) if path_prefix is None else path_prefix
        routes = [
            (f"{prefix.rstrip('/')}{address}", route.view_func.__name__, route)
            for bound in self._get_bound_routers()
            for address, view in bound.path_operations.items()
            for route in view.operations
        ]
        return openapi.document(
            routes, title=self.title, version=self.version, description=self.description
        )


def _no_such_address(_request: HttpRequest) -> HttpResponse:
    raise Http404


def framed(view: View) -> View:
    """*view* with a request id, with HEAD, and with every failure answered as a problem."""

    @wraps(view)
    def framed(request: HttpRequest, *parts: Any, **named: Any) -> HttpResponseBase:
        given = request.headers.get("X-Request-Id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        request.request_id = request_id  # type: ignore[attr-defined]
        asked_as = request.method
        if asked_as == "HEAD":
            request.method = "GET"  # Whatever can be read can be asked for its head.
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                answer = view(request, *parts, **named)
                if isinstance(answer, HttpResponseNotAllowed):
                    raise _not_allowed(asked_as, answer)
                answer = as_cached(request, answer)
            except Exception as error:  # noqa: BLE001 - the outermost: the caller gets an answer
                answer = as_cached(request, problems.answer(request, error))
        request.method = asked_as
        if asked_as == "HEAD":
            answer = head_of(answer)
        answer["X-Request-Id"] = request_id
        return answer

    framed.csrf_exempt = True  # type: ignore[attr-defined]  # Bearer checks it for sessions.
    return framed


def refuse(request: HttpRequest, problem: Problem) -> HttpResponse:
    """Answer *request*, which reaches no view, with *problem*, in the same frame as any other."""
    answer = framed(lambda asked: problems.respond(asked, problem))(request)
    return cast("HttpResponse", answer)


def _not_allowed(method: str | None, answer: HttpResponseNotAllowed) -> Problem:
    allowed = answer["Allow"].replace("GET", "GET, HEAD")
    return Problem(
        405,
        "method-not-allowed",
        f"{(method or '')[:20]} cannot be used here; {allowed} can.",
        headers={"Allow": allowed},
    )


def _problem(request: HttpRequest, error: Exception | type[Exception]) -> HttpResponse:
    return problems.answer(request, error if isinstance(error, Exception) else error())


api = _Api(
    title="Muster",
    version="1",
    description="Submits jobs to a cluster, and shows what it decided and why.",
    docs=Swagger(),  # Its files are in ninja's package; templates/ninja has the page around them.
    urls_namespace="api-1",
)
for error in (Exception, Http404, HttpError):  # Over the handlers of ninja.
    api.add_exception_handler(error, _problem)
api.add_decorator(idempotency.once)  # Before the routers: it is around every view of theirs.
for router in (
    *(jobs.router, executions.router, logs.router, nodes.router, evaluations.router),
    *(queue.router, events.router, status.router, namespaces.router),
    secrets.router,
):
    api.add_router("", router)
