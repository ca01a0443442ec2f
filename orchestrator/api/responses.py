"""Answers as JSON, encoded once, without a second model in between: lists are long."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID

import msgspec
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response

from .problems import Problem

_encoder = msgspec.json.Encoder()


def answer(data: Any, status: int = 200, **headers: str) -> HttpResponse:
    """*data* as JSON; a header is written as a keyword with underscores."""
    return HttpResponse(
        _encoder.encode(data),
        status=status,
        content_type="application/json",
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def tagged(answer: HttpResponse, intent: str = "") -> HttpResponse:
    """*answer* with an entity tag of every byte of it, after the *intent* that it shows."""
    shown = hashlib.sha256(answer.content).hexdigest()[:24]
    answer["ETag"] = f'"{intent}.{shown}"'
    return answer


def as_cached(request: HttpRequest, answer: HttpResponseBase) -> HttpResponseBase:
    """*answer*, or only that the caller has it already; raises Problem when it had to match."""
    answer.headers.setdefault("Cache-Control", "private, no-cache")
    if request.method != "GET" or answer.status_code != 200 or answer.streaming:
        return answer
    assert isinstance(answer, HttpResponse)
    tag = answer["ETag"] if "ETag" in answer else tagged(answer)["ETag"]
    found = get_conditional_response(request, etag=tag, response=answer)
    assert found is not None
    if found.status_code == 412:
        raise Problem(
            412,
            "precondition-failed",
            "It is not what If-Match says.",
            hint="Leave If-Match out to read it as it is now.",
        )
    return found


def head_of(answer: HttpResponseBase) -> HttpResponse:
    """What HEAD gets where GET gets *answer*; a stream is not begun."""
    head = HttpResponse(status=answer.status_code, headers=dict(answer.items()))
    if isinstance(answer, HttpResponse) and answer.content:
        head["Content-Length"] = str(len(answer.content))
    return head


def short(key: UUID) -> str:
    """Enough of an id for people to tell things apart."""
    return key.hex[:8]
