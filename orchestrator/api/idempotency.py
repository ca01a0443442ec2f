"""Idempotency keys: a request that is sent again gets the answer that it was given before.

Every view that changes something goes through `once`.  An answer that says ``no-store`` holds a
secret: it is kept for its repeat too, but sealed, so that who reads the database cannot use it.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import wraps
from typing import Any

import msgspec
from cryptography.fernet import Fernet, InvalidToken
from django.db import connection, transaction
from django.db.models import F, Func, TextField, Value
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import salted_hmac

from orchestrator.models import IdempotencyKey
from orchestrator.models.access import DEFAULT
from orchestrator.spec.mistakes import mistake

from . import operations
from .authentication import Caller
from .preconditions import CONDITIONS, refuse_others
from .problems import Problem, invalid_parameters
from .responses import answer

LONGEST = 255

View = Callable[..., HttpResponse]


def once(view: View) -> View:
    """Call *view* in one transaction, and not again for the same Idempotency-Key.

    Who repeats a request while the first is being answered waits for it.  An error stores
    nothing, so that a corrected request may use the same key.  What only reads is left alone.
    """
    described = operations.of(view)

    @wraps(view)
    def done_once(request: HttpRequest, *parts: Any, **named: Any) -> HttpResponse:
        if request.method == "GET":
            return view(request, *parts, **named)
        refuse_others(request, described.conditions)
        key = request.headers.get("Idempotency-Key") if described.changes else None
        with transaction.atomic():
            if key is None:
                return view(request, *parts, **named)
            _check(key)
            actor, digest = _actor(request), _digest(request)
            mine = _claim(actor, key, digest)
            if mine is None:
                return _repeat(actor, key, digest)
            made = view(request, *parts, **named)
            IdempotencyKey.objects.filter(pk=mine).update(
                status=made.status_code, answer=_kept(made, actor, key)
            )
            return made

    return done_once


def forget_namespace(name: str) -> None:
    """Forget what was answered in *name*: in another namespace of that name it was not done."""
    of = Func(F("actor"), Value("/"), Value(2), function="split_part", output_field=TextField())
    IdempotencyKey.objects.annotate(of=of).filter(of=name).delete()


def _actor(request: HttpRequest) -> str:
    """Whose key it is, in the request's namespace; a node that joins is nobody yet.

    Its token is part of the request; one that has joined is who its credential says.
    """
    caller: Caller | None = getattr(request, "auth", None)
    if caller is None:
        credential = request.headers.get("Authorization", "")
        keyed = salted_hmac("muster.callers", credential, algorithm="sha256")
        return f"credential:{keyed.hexdigest()}" if credential else ""
    # What no namespace is called is refused when the request is read.
    namespace = request.GET.get("namespace", "").replace("\0", "") or DEFAULT
    # No user's name has a slash in it.  What a token may not see, it is not told again either.
    parts = ("" if namespace == DEFAULT else namespace[:63], *sorted(caller.rights.only))
    return "/".join((caller.actor, *parts)) if any(parts) else caller.actor


def _check(key: str) -> None:
    if not 1 <= len(key) <= LONGEST or not key.isascii() or not key.isprintable():
        hint = f"Use 1 to {LONGEST} printable ASCII characters; a UUID is good."
        raise invalid_parameters([mistake("Idempotency-Key", "is not a key", hint)])


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
    sealed = stored.answer.get(_SEALED)
    opened = None if sealed is None else _open(sealed, actor, key)
    if stored.request_digest != digest:
        raise Problem(
            422,
            "idempotency-key-reused",
            "This Idempotency-Key was used for another request.",
            hint="Make a new key for every new request; repeat one only with the same body and"
            " conditions.",
        )
    headers = {"Idempotency_Replayed": "true"}
    if opened is None:
        return answer(stored.answer, stored.status, **headers)
    return answer(msgspec.Raw(opened), stored.status, Cache_Control="no-store", **headers)


def _digest(request: HttpRequest) -> str:
    """What tells requests apart: what is done to what, on which conditions."""
    said = f"{request.method} {request.path}\n"
    for name in CONDITIONS:
        if (condition := request.headers.get(name)) is not None:
            said += f"{name}: {condition}\n"
    # Keyed: a body may hold a secret, which who reads the database must not find by guessing.
    keyed = salted_hmac("muster.requests", said.encode() + request.body, algorithm="sha256")
    return keyed.hexdigest()


# --- secrets ---------------------------------------------------------------------------------

_SEALED = "sealed"


def _kept(made: HttpResponse, actor: str, key: str) -> Any:
    """What is stored of *made*: its JSON, or a box with it if no cache may store it either."""
    if "no-store" in made.get("Cache-Control", ""):
        return {_SEALED: _box(actor, key).encrypt(made.content).decode()}
    return msgspec.json.decode(made.content)


def _open(sealed: str, actor: str, key: str) -> bytes:
    try:
        return _box(actor, key).decrypt(sealed)
    except InvalidToken:
        raise Problem(
            409,
            "answer-lost",
            "This was done, and its answer cannot be read any more: the secret key is another.",
            hint="Send the request again with a new Idempotency-Key.",
        ) from None


def _box(actor: str, key: str) -> Fernet:
    """What seals one answer: its key is made of the server's secret key, which no row holds."""
    made_of = salted_hmac("muster.answers", f"{actor}\n{key}", algorithm="sha256")
    return Fernet(urlsafe_b64encode(made_of.digest()))
