"""Who calls, and how much they may: a bearer token, or the session of a signed-in browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from django.contrib.auth.models import User
from django.http import HttpRequest
from ninja.security import HttpBearer
from ninja.utils import check_csrf

from orchestrator import access
from orchestrator.access import limits, sessions, tokens
from orchestrator.access.roles import SCOPES
from orchestrator.models.access import DEFAULT

from .problems import Problem, unauthenticated


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who calls, and what they may do: *actor* is how the journal names them."""

    user: User
    rights: access.Rights
    again: Callable[[], access.Rights | None] = field(repr=False)
    """What they may do by now; None when they are nobody any longer."""

    @property
    def actor(self) -> str:
        return access.actor_of(self.user)

    def sight(self, namespace: str) -> access.Sight:
        """What is looked at with the parameter *namespace*; raises NotFound."""
        return access.sight(self.rights, namespace or DEFAULT)


class Bearer(HttpBearer):
    """Lets callers through who have a role at all, and whose token has the scope for *verb*.

    What concerns a job is decided where it has been found; what concerns the cluster, here.
    Who nobody knows gets one uniform 401.
    """

    def __init__(self, verb: str) -> None:
        super().__init__()
        self.verb, self.rule = verb, access.VERBS[verb]
        self.scope = next(it for it, role in SCOPES.items() if role == self.rule.least)

    def __call__(self, request: HttpRequest) -> Caller:
        found = _with_token(request) if "Authorization" in request.headers else _signed_in(request)
        if found is None:
            raise unauthenticated()
        limits.requests.count(found.user.pk, found.user.get_username())
        if found.rights.scope < self.rule.least:
            raise Problem(
                403,
                "forbidden",
                f"This needs the scope {self.scope}: {tokens.SCOPES[self.scope]}.",
                hint=f"Use a token with the scope {self.scope}, of a user who may do that.",
            )
        access.require_any(found.rights)
        if not self.rule.in_namespace:
            access.require(found.rights, self.verb)
        return found

    def authenticate(self, request: HttpRequest, token: str) -> None:
        """Never called: `__call__` does all of it."""


READ = Bearer("see")
SUBMIT = Bearer("submit")
STOP = Bearer("stop")
RERUN = Bearer("rerun")
OPERATE_NODES = Bearer("nodes")
OPERATE_QUEUE = Bearer("queue")
JOIN_TOKENS = Bearer("join-tokens")
NAMESPACES = Bearer("namespaces")
SECRETS = Bearer("secrets")


def caller(request: HttpRequest) -> Caller:
    """Who made this request, which has passed a Bearer."""
    return cast(Caller, request.auth)  # type: ignore[attr-defined]  # Set by ninja.


def _with_token(request: HttpRequest) -> Caller | None:
    scheme, _, secret = request.headers["Authorization"].partition(" ")
    if scheme.lower() != "bearer":
        return None
    secret, address = secret.strip(), request.META.get("REMOTE_ADDR", "")

    def again() -> access.Rights | None:
        token = tokens.authenticate(secret, address)
        return None if token is None else access.rights_of(token.user, token)

    token = tokens.authenticate(secret, address)
    return None if token is None else Caller(token.user, access.rights_of(token.user, token), again)


def _signed_in(request: HttpRequest) -> Caller | None:
    if not request.user.is_authenticated:
        return None
    if check_csrf(request) is not None:
        raise Problem(
            403,
            "csrf",
            "A change made with a session must carry its CSRF token.",
            hint="Send X-CSRFToken from a page of this site, or use an API token.",
        )
    key = request.session.session_key
    return Caller(request.user, access.rights_of(request.user), lambda: sessions.rights_of(key))
