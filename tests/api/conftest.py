from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client

from orchestrator.access import tokens
from tests.api import documented

TASK = {"command": ["true"]}


class Api:
    """The API as one token sees it."""

    def __init__(self, token: str | None = None, **extra: Any) -> None:
        self.client = Client(raise_request_exception=False, **extra)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str, **headers: str) -> HttpResponse:
        return self._ask("GET", path, headers)

    def head(self, path: str, **headers: str) -> HttpResponse:
        return self._ask("HEAD", path, headers)

    def post(
        self,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        method: str = "POST",
        **headers: str,
    ) -> HttpResponse:
        content = raw if raw is not None else (b"" if body is None else json.dumps(body).encode())
        kind = headers.pop("Content_Type", "application/json")
        return self._ask(method, path, headers, content, content_type=kind)

    def _ask(self, method: str, path: str, headers: dict[str, str], *body: Any, **how: Any) -> Any:
        path = f"/api/v1/{path}"
        answer = self.client.generic(method, path, *body, headers=self._with(headers), **how)
        documented.check(method, path, answer)
        return answer

    def _with(self, headers: dict[str, str]) -> dict[str, str]:
        return self.headers | {name.replace("_", "-"): value for name, value in headers.items()}


def token(user: User, *scopes: str, expires_in: timedelta | None = None) -> str:
    return tokens.create(user=user, name="test", scopes=scopes, expires_in=expires_in)


def spec(name: str = "a-job", **differing: Any) -> dict[str, Any]:
    return {"name": name, "task": TASK, **differing}


@pytest.fixture
def root(db) -> User:
    return User.objects.create_superuser("root")


@pytest.fixture
def api(root) -> Api:
    return Api(token(root, "admin"))
