"""Answers as JSON, encoded once, without a second model in between: lists are long."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified

_encoder = msgspec.json.Encoder()


def answer(data: Any, status: int = 200, **headers: str) -> HttpResponse:
    """*data* as JSON; a header is written as a keyword with underscores."""
    return HttpResponse(
        _encoder.encode(data),
        status=status,
        content_type="application/json",
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def tagged(request: HttpRequest, tag: str, data: Any) -> HttpResponse:
    """*data* with its entity tag, or only that the caller has it already."""
    if tag in _tags(request.headers.get("If-None-Match", "")):
        return HttpResponseNotModified(headers={"ETag": tag})
    return answer(data, ETag=tag)


def etag(rev: int) -> str:
    return f'"rev-{rev}"'


def matches(condition: str, tag: str | None) -> bool:
    """Whether an If-Match *condition* holds; *tag* None stands for what does not exist."""
    if condition.strip() == "*":
        return tag is not None
    return tag in _tags(condition)


def short(key: UUID) -> str:
    """Enough of an id for people to tell things apart."""
    return key.hex[:8]


def _tags(condition: str) -> set[str]:
    return {part.strip().removeprefix("W/") for part in condition.split(",")}
