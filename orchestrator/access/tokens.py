"""API tokens: made once, shown once, kept only as a digest, and believed for seconds at most.

A scope includes the ones before it, and caps the roles of the token's user: see `users`.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Func, Q, Value
from django.db.models.functions import Now
from django.utils import timezone

from orchestrator.models import ApiToken

from . import sign_in
from .users import BELIEVED

#: What each scope allows, beside everything that stands before it.
SCOPES = {
    "read": "look",
    "submit": "submit jobs, and replace, stop and rerun one's own",
    "operate": "do that to all jobs; put secrets, approve and drain nodes, pause the queue",
    "admin": "make join tokens and namespaces",
}
RANK = {scope: rank for rank, scope in enumerate(SCOPES)}

PREFIX = "at_"
_MOST_BELIEVED = 1024
#: ``last_used_at`` is this coarse, so that using a token writes almost nothing.
COARSE = timedelta(minutes=10)

_believed: dict[str, tuple[float, ApiToken]] = {}


def create(
    *,
    user: User | None,
    name: str,
    scopes: Iterable[str],
    expires_in: timedelta | None,
    namespaces: Iterable[str] = (),
) -> str:
    """Make a token of *user* and give its secret, which nobody can read again.

    With *namespaces* it is good in those alone.

    Raises ValueError for a scope that there is not, or a user that there is not.
    """
    return issue(user=user, name=name, scopes=scopes, expires_in=expires_in, namespaces=namespaces)[
        1
    ]


def issue(
    *,
    user: User | None,
    name: str,
    scopes: Iterable[str],
    expires_in: timedelta | None,
    namespaces: Iterable[str] = (),
) -> tuple[ApiToken, str]:
    """Make a token as `create` does; the row, and the secret."""
    wanted = sorted(set(scopes), key=lambda scope: RANK.get(scope, -1))
    if not wanted or not set(wanted) <= RANK.keys():
        raise ValueError(f"scopes are {', '.join(SCOPES)}, not {', '.join(wanted) or 'none'}")
    if user is None:
        raise ValueError("a token belongs to a user, and there is none")
    key = uuid.uuid4()
    # The beginning of the id is readable, so that a token found somewhere can be revoked.
    secret = f"{PREFIX}{key.hex[:8]}_{secrets.token_urlsafe(32)}"
    row = ApiToken.objects.create(
        id=key,
        user=user,
        name=name,
        digest=_digest(secret),
        scopes=wanted,
        namespaces=sorted(set(namespaces)),
        expires_at=None if expires_in is None else timezone.now() + expires_in,
    )
    return row, secret


def authenticate(secret: str, address: str = "") -> ApiToken | None:
    """The token with this secret, with its user; None unless it is good now.

    Raises TooManyAttempts when many that were none have come from *address*; one that was good
    here before is looked at all the same.
    """
    if not secret.startswith(PREFIX) or len(secret) > 200:
        return None
    digest, now = _digest(secret), time.monotonic()
    asked_at, token = _believed.get(digest, (float("-inf"), None))
    if now - asked_at > BELIEVED:
        if token is None:
            sign_in.refuse_locked(address)
        token = _fetch(digest)
        _remember(digest, now, token)
        if token is None:
            sign_in.bad_token(address)
    if token is None or _is_over(token, timezone.now()):
        return None
    return token


def revoke(token_id: uuid.UUID) -> bool:
    """Make the token worthless, at once here and in seconds elsewhere; False if it was already."""
    revoked = ApiToken.objects.filter(pk=token_id, revoked_at=None).update(revoked_at=Now())
    _believed.clear()
    return bool(revoked)


def forget_namespace(name: str) -> None:
    """No token is good in *name* any longer, also not in a namespace that gets the name again.

    A token that was good in no other is revoked: without any it would be good in all.
    """
    named = ApiToken.objects.filter(namespaces__contains=[name], revoked_at=None)
    named.filter(namespaces__len=1).update(revoked_at=Now())
    without = Func(F("namespaces"), Value(name), function="array_remove")
    named.filter(namespaces__len__gt=1).update(namespaces=without)
    _believed.clear()
    transaction.on_commit(_believed.clear)


def _fetch(digest: str) -> ApiToken | None:
    token = ApiToken.objects.select_related("user").filter(digest=digest, revoked_at=None).first()
    if token is not None and (
        token.last_used_at is None or timezone.now() - token.last_used_at > COARSE
    ):
        unused = Q(last_used_at=None) | Q(last_used_at__lt=Now() - COARSE)
        ApiToken.objects.filter(unused, pk=token.pk).update(last_used_at=Now())
    return token


def _remember(digest: str, now: float, token: ApiToken | None) -> None:
    if token is None:
        _believed.pop(digest, None)
        return
    if len(_believed) >= _MOST_BELIEVED:
        _believed.clear()
    _believed[digest] = (now, token)


def _is_over(token: ApiToken, now: datetime) -> bool:
    return not token.user.is_active or (token.expires_at is not None and token.expires_at <= now)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
