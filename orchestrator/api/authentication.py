"""Who calls, and how much they may: a bearer token, or the session of a signed-in browser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from django.contrib.auth.models import User
from django.http import HttpRequest
from ninja.security import HttpBearer
from ninja.utils import check_csrf

from orchestrator.access import permissions, tokens

from .problems import Problem, unauthenticated


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may call: *actor* is how the journal names them."""

    user: User
    rank: int

    @property
    def actor(self) -> str:
        return f"user:{self.user.get_username()}"


class Bearer(HttpBearer):
    """Lets callers through whose token has at least *scope*, and whose user has the *permission*.

    It is the one that the pages ask for.  Who nobody knows gets one uniform 401.
    """

    def __init__(self, scope: str, permission: str = "") -> None:
        super().__init__()
        self.scope, self.permission = scope, permission

    def __call__(self, request: HttpRequest) -> Caller:
        found = _with_token(request) if "Authorization" in request.headers else _signed_in(request)
        if found is None:
            raise unauthenticated()
        if found.rank < tokens.RANK[self.scope]:
            raise Problem(
                403,
                "forbidden",
                f"This needs the scope {self.scope}: {tokens.SCOPES[self.scope]}.",
                hint=f"Use a token with the scope {self.scope}, of a user who may do that.",
            )
        if self.permission and not found.user.has_perm(self.permission):
            raise Problem(
                403,
                "forbidden",
                f"The user {found.user.get_username()} lacks the permission {self.permission}.",
                hint="An administrator gives it in /admin/, on the user's page.",
            )
        return found

    def authenticate(self, request: HttpRequest, token: str) -> None:
        """Never called: `__call__` does all of it."""


READ = Bearer("read")
SUBMIT = Bearer("submit", permissions.JOBS)
OPERATE_NODES = Bearer("operate", permissions.NODES)
OPERATE_QUEUE = Bearer("operate", permissions.QUEUE)
ADMIN = Bearer("admin", permissions.JOIN_TOKENS)


def caller(request: HttpRequest) -> Caller:
    """Who made this request, which has passed a Bearer."""
    return cast(Caller, request.auth)  # type: ignore[attr-defined]  # Set by ninja.


def _with_token(request: HttpRequest) -> Caller | None:
    scheme, _, secret = request.headers["Authorization"].partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = tokens.authenticate(secret.strip())
    return None if token is None else Caller(token.user, tokens.rank(token))


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
    return Caller(request.user, max(tokens.RANK.values()))
