from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests import rows
from tests.dashboard import scenes


@pytest.fixture
def scene(db) -> dict[str, Any]:
    return scenes.scene()


def signed_in(user: User, **options: Any) -> Client:
    client = Client(headers={"host": "localhost"}, **options)
    client.force_login(user)
    return client


@pytest.fixture
def operator(db) -> Client:
    """Somebody who may do everything."""
    return signed_in(User.objects.create_superuser("ana"))


@pytest.fixture
def viewer(db) -> Client:
    """Somebody who may only look."""
    return signed_in(rows.user("vera", "viewer"))


@pytest.fixture
def keeper(db) -> Client:
    """Somebody who may do everything but give roles and let nodes join."""
    return signed_in(rows.user("ken", "operator"))
