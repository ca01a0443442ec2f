"""What is sent to us: checked for type and size before anybody reads it, then decoded strictly."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from django.http import HttpRequest

from orchestrator.spec.reading import LARGEST

from . import validation_errors
from .problems import Problem, bad_request, invalid_parameters

#: A batch of jobs may be larger than one job; Django refuses whatever is larger still.
LARGEST_BATCH = 1024 * 1024

T = TypeVar("T")


def json_bytes(request: HttpRequest, *, at_most: int = LARGEST) -> bytes:
    """The body, which is JSON by its own word, not compressed, and not too large; or nothing."""
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdecimal()) or len(length) > 20:
        raise bad_request()
    if int(length) > at_most:
        raise _too_large(at_most)
    body = request.body
    if len(body) > at_most:  # Sent in chunks, it did not say its length.
        raise _too_large(at_most)
    if not body:
        return body
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _unsupported("Compressed requests are not accepted.", "Send it uncompressed.")
    charset = (request.content_params or {}).get("charset", "utf-8").lower()
    if request.content_type != "application/json" or charset not in {"utf-8", "utf8"}:
        raise _unsupported(
            "Only application/json is accepted.",
            "Send `Content-Type: application/json`; the muster command reads YAML for you.",
        )
    return body


def read(request: HttpRequest, kind: type[T], *, at_most: int = LARGEST) -> T:
    """The body as a *kind*; one that has only defaults may be left out."""
    body = json_bytes(request, at_most=at_most) or b"{}"
    try:
        made = msgspec.json.decode(body, type=kind)
        twice = validation_errors.repeated(body)
    except msgspec.ValidationError as error:
        raise invalid_parameters(validation_errors.in_body(error, body, kind)) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        said = validation_errors.undecodable(error, body)
        raise Problem(400, "invalid-json", said, hint="Correct the text there.") from None
    if twice:
        raise invalid_parameters(twice)
    return made


def _too_large(at_most: int) -> Problem:
    return Problem(
        413,
        "too-large",
        f"The body may have {at_most} bytes.",
        hint="Put large data where the task can fetch it.",
        headers={"Connection": "close"},
    )


def _unsupported(detail: str, hint: str) -> Problem:
    return Problem(415, "unsupported-media-type", detail, hint=hint)
