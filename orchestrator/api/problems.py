"""Every error as application/problem+json (RFC 9457), with a code, a hint and never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus

import msgspec
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse
from msgspec import UNSET, UnsetType
from ninja.errors import AuthenticationError

from nodes.errors import MusterError
from orchestrator.endpoint.health import trouble_behind
from orchestrator.explain.database_errors import Trouble
from orchestrator.spec import InvalidSpec

from .schemas import Mistake, ProblemDetails

logger = logging.getLogger(__name__)

MANUAL = "https://muster.invalid/problems/"
"""What `type` begins with: a name, not an address; the manual explains each code."""


class Problem(Exception):
    """An answer that is not what the caller hoped for.  Raise it anywhere below a view."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        hint: str = "",
        errors: Sequence[dict[str, str]] = (),
        headers: dict[str, str] | None = None,
        current_rev: int | UnsetType | None = UNSET,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.hint = status, code, detail, hint
        self.errors = [Mistake(**it) for it in errors]
        self.headers, self.current_rev = headers or {}, current_rev


def answer(request: HttpRequest, error: Exception) -> HttpResponse:
    """What *request* is told about *error*."""
    problem = _problem(request, error)
    if problem.status >= 500:
        logger.error("%s %s failed", request.method, request.path[:200], exc_info=error)
    return respond(request, problem)


def respond(request: HttpRequest, problem: Problem) -> HttpResponse:
    body = ProblemDetails.of(
        problem,
        type=f"{MANUAL}{problem.code}",
        title=HTTPStatus(problem.status).phrase,
        request_id=getattr(request, "request_id", ""),
    )
    return HttpResponse(
        msgspec.json.encode(body),
        status=problem.status,
        content_type="application/problem+json",
        headers=problem.headers,
    )


# Made anew each time: an exception that is raised twice keeps growing its traceback.
unauthenticated = partial(
    Problem,
    401,
    "unauthenticated",
    "This needs a valid API token, or a signed-in session.",
    hint="Send `Authorization: Bearer at_…`; `manage.py token create` makes one.",
    headers={"WWW-Authenticate": 'Bearer realm="muster"'},
)
no_such_address = partial(
    Problem,
    404,
    "no-such-address",
    "There is nothing at this address.",
    hint="/api/v1/openapi.json lists every address.",
)
too_large = partial(
    Problem,
    413,
    "too-large",
    "The request is larger than any request may be.",
    hint="Send less at once.",
)
bad_request = partial(Problem, 400, "bad-request", "The request cannot be understood.")
internal = partial(
    Problem,
    500,
    "internal",
    "Something went wrong here; it has been logged with the request's id.",
    hint="Tell your operator the request id.",
)


def _problem(request: HttpRequest, error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case InvalidSpec():
            return Problem(
                error.status, error.code, str(error), hint=error.hint, errors=error.errors
            )
        case MusterError() if error.status < 500:
            later = error.facts.get("retry_after")
            headers = {} if later is None else {"Retry-After": str(later)}
            return Problem(error.status, error.code, str(error), hint=error.hint, headers=headers)
    if (trouble := trouble_behind(error)) is not None:
        return unavailable(request, trouble)
    for kind, make in _KNOWN:
        if isinstance(error, kind):
            return make()
    return internal()


_KNOWN: tuple[tuple[type[Exception], Callable[[], Problem]], ...] = (
    (AuthenticationError, unauthenticated),
    (Http404, no_such_address),
    (RequestDataTooBig, too_large),
    (SuspiciousOperation, bad_request),
)


def unavailable(request: HttpRequest, trouble: Trouble) -> Problem:
    """The database is away, full or busy; what was asked may be asked again."""
    hint = trouble.cure
    if request.method not in {"GET", "HEAD"} and "Idempotency-Key" not in request.headers:
        hint += " With an Idempotency-Key nothing can happen twice."
    return Problem(503, trouble.code, trouble.sentence, hint=hint, headers={"Retry-After": "1"})


def invalid_parameters(errors: Sequence[dict[str, str]]) -> Problem:
    """A request whose parameters or body are not what the address takes."""
    named = ", ".join(error["path"] or "the body" for error in errors)
    return Problem(400, "invalid-parameter", f"Not accepted: {named}.", errors=errors)
