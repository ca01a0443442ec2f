"""The roles of users: read in one query, and believed for seconds, as tokens are."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser, Group, User
from django.db import transaction
from django.db.models import Q
from django.db.models.signals import m2m_changed, post_delete, post_save

from orchestrator.models import ApiToken, RoleBinding

from .roles import SCOPES, Rights, Role

BELIEVED = 3.0
"""Seconds that roles and tokens are believed: to take one away takes as long, elsewhere."""

_MOST_BELIEVED = 1024
_believed: dict[int, tuple[float, Rights]] = {}


def rights_of(user: User | AnonymousUser, token: ApiToken | None = None) -> Rights:
    """What *user* may do, through *token* if there is one; a superuser is an admin for all."""
    rights = _rights(user)
    if token is None:
        return rights
    scope = max((SCOPES[it] for it in token.scopes if it in SCOPES), default=Role.NONE)
    return replace(rights, scope=scope, only=frozenset(token.namespaces))


def actor_of(user: AbstractBaseUser | AnonymousUser) -> str:
    """How the journal names *user*; see ``formatting.person``."""
    return f"user:{user.get_username()}"


def forget(*_: Any, **__: Any) -> None:
    """Read all roles anew; those, too, that somebody reads before this transaction has ended."""
    _believed.clear()
    transaction.on_commit(_believed.clear)


def _rights(user: User | AnonymousUser) -> Rights:
    if isinstance(user, AnonymousUser) or not user.is_active:
        return Rights()
    if user.is_superuser:
        return Rights(user.pk, user.get_username(), Role.ADMIN)
    now = time.monotonic()
    asked_at, rights = _believed.get(user.pk, (float("-inf"), Rights()))
    if now - asked_at > BELIEVED:
        rights = _read(user)
        if len(_believed) >= _MOST_BELIEVED:
            _believed.clear()
        _believed[user.pk] = now, rights
    return rights


def _read(user: User) -> Rights:
    mine = RoleBinding.objects.filter(Q(user=user) | Q(group__user=user))
    highest: dict[str | None, Role] = {}
    for namespace, word in mine.values_list("namespace_id", "role"):
        role = Role[word.upper()]
        highest[namespace] = max(role, highest.get(namespace, Role.NONE))
    everywhere = highest.pop(None, Role.NONE)
    named = tuple(sorted((name, role) for name, role in highest.items() if name is not None))
    return Rights(user.pk, user.get_username(), everywhere, named)


for _signal in (post_save, post_delete):
    _signal.connect(forget, sender=RoleBinding)
    _signal.connect(forget, sender=Group)
m2m_changed.connect(forget, sender=User.groups.through)
