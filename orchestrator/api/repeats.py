"""Idempotency keys: a request that is sent again gets the answer that it was given before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse

from orchestrator.models import IdempotencyKey

from .answers import answer
from .callers import caller
from .problems import Problem, invalid_parameters

LONGEST = 255

Answer = tuple[int, dict[str, Any]]


def once(request: HttpRequest, act: Callable[[], Answer]) -> HttpResponse:
    """Do *act* in one transaction, and not again for the same Idempotency-Key.

    Who repeats a request while the first is being answered waits for it.  An error stores
    nothing, so that a corrected request may use the same key.
    """
    key = request.headers.get("Idempotency-Key")
    with transaction.atomic():
        if key is None:
            status, data = act()
            return answer(data, status)
        _check(key)
        actor, digest = caller(request).actor[:150], _digest(request)
        mine = _claim(actor, key, digest)
        if mine is None:
            return _repeat(actor, key, digest)
        status, data = act()
        IdempotencyKey.objects.filter(pk=mine).update(
            status=status, answer=msgspec.to_builtins(data)
        )
        return answer(data, status)


def _check(key: str) -> None:
    if not 1 <= len(key) <= LONGEST or not key.isascii() or not key.isprintable():
        hint = f"Use 1 to {LONGEST} printable ASCII characters; a UUID is good."
        raise invalid_parameters(
            [{"path": "Idempotency-Key", "message": "is not a key", "hint": hint}]
        )


def _claim(actor: str, key: str, digest: str) -> int | None:
    """The id of the row that is ours to fill; None when the key has been used."""
    with connection.cursor() as cursor:
        # Waits while another transaction has inserted the same key and not ended yet.
        cursor.execute(
            """
            INSERT INTO orchestrator_idempotencykey (actor, key, request_digest, status, answer)
            VALUES (%s, %s, %s, 0, '{}') ON CONFLICT (actor, key) DO NOTHING RETURNING id
            """,
            [actor, key, digest],
        )
        row = cursor.fetchone()
    return None if row is None else row[0]


def _repeat(actor: str, key: str, digest: str) -> HttpResponse:
    stored = IdempotencyKey.objects.get(actor=actor, key=key)
    if stored.request_digest != digest:
        raise Problem(
            422,
            "idempotency-key-reused",
            "This Idempotency-Key was used for another request.",
            hint="Make a new key for every new request; repeat one only with the same body.",
        )
    return answer(stored.answer, stored.status, Idempotency_Replayed="true")


def _digest(request: HttpRequest) -> str:
    said = f"{request.method} {request.path}\n".encode()
    return hashlib.sha256(said + request.body).hexdigest()
