"""The sessions of browsers: rows that know whose they are, which slide with what people do."""

from __future__ import annotations

import time
from typing import Any

from django.contrib.auth import SESSION_KEY, get_user
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db import transaction
from django.db.models.functions import Now
from django.http import HttpRequest

from orchestrator.explain.formatting import counted
from orchestrator.models import Session, journal
from orchestrator.models.pruning import delete_some

from . import users
from .roles import Rights

RENEW = 300.0
"""Seconds after which a session that is used begins its hours anew: not each use is written."""

_USED = "used"


class SessionStore(DatabaseStore):
    """Django's own, in rows that name the user."""

    @classmethod
    def get_model_class(cls) -> type[Session]:
        return Session

    def create_model_instance(self, data: dict[str, Any]) -> Session:
        row: Any = super().create_model_instance(data)
        row.user_id = int(data[SESSION_KEY]) if SESSION_KEY in data else None
        return row  # type: ignore[no-any-return]


def slide(session: SessionBase, now: float | None = None) -> None:
    """Begin the hours of a session anew that somebody uses."""
    now = time.time() if now is None else now
    if SESSION_KEY in session and now - session.get(_USED, 0.0) > RENEW:
        session[_USED] = now


def _begin(sender: Any, request: HttpRequest, **_: Any) -> None:  # noqa: ARG001 - Django's names
    request.session[_USED] = time.time()


user_logged_in.connect(_begin)


def rights_of(key: str | None) -> Rights | None:
    """What the session's user may do; None when it is over, or its user no longer active."""
    request = HttpRequest()
    request.session = SessionStore(key)
    user = get_user(request)
    return users.rights_of(user) if user.is_authenticated else None


def end_all(user: User, actor: str) -> int:
    """Sign *user* out, wherever that is; how many sessions ended."""
    with transaction.atomic():
        ended, _ = Session.objects.filter(user=user).delete()
        what = f"{user.get_username()} is signed out everywhere: {counted(ended, 'session')}"
        journal.record([journal.fact("access", "sign-out", what, actor=actor)])
    return ended


def forget_expired() -> None:
    """Drop sessions that are over, a bounded number at a time."""
    delete_some(Session.objects.filter(expire_date__lt=Now()))
