"""What is sent to us, decoded strictly: parameters, and bodies of checked type and size."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import EnumType
from functools import cache
from itertools import islice
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
from django.http import HttpRequest

from orchestrator import spec
from orchestrator.spec import json_text
from orchestrator.spec.mistakes import Mistake, mistake
from orchestrator.spec.parsing import LARGEST, MOST_ERRORS

from . import validation_errors
from .problems import Problem, bad_request, invalid_parameters
from .schemas import Parameters

#: A batch of jobs may be larger than one job; Django refuses whatever is larger still.
LARGEST_BATCH = 1024 * 1024

T = TypeVar("T")
P = TypeVar("P", bound=Parameters)


def query(request: HttpRequest, kind: type[P]) -> P:
    """The parameters as a *kind*: what it does not have is refused, and what is given twice."""
    types = _types(kind)
    found = [_unknown(name, types, request) for name in sorted(request.GET.keys() - types)[:20]]
    values: dict[str, Any] = {}
    for name in (it for it in types if it in request.GET):
        first, *more = request.GET.getlist(name)
        if more:
            hint = "Give it once; several words are separated by commas."
            found.append(mistake(name, "is given twice", hint))
        else:
            values[name] = _parameter(name, first, types[name], found)
    if found:
        raise invalid_parameters(found)
    return kind(**values)


def refuse_both(request: HttpRequest, name: str, *others: str) -> None:
    """Raise Problem when the parameter *name* comes with one of *others*, which it overrules."""
    for other in others:
        if other in request.GET:
            raise invalid_parameters(
                [mistake(name, f"cannot be combined with {other}", "Give one.")]
            )


def body(request: HttpRequest, kind: type[T], *, at_most: int = LARGEST) -> T:
    """The body as a *kind*; one that has only defaults may be left out."""
    sent = json_bytes(request, at_most=at_most)
    if kind is spec.JobSpec:
        return cast("T", spec.parse_json(sent))
    sent = sent or b"{}"
    try:
        data, twice = json_text.load(sent, deepest=json_text.DEEPEST + 2)  # A batch holds jobs.
    except json_text.NotJson as error:
        raise Problem(400, "invalid-json", f"The body {error}.", hint=error.hint) from None
    # What a list holds is judged by whoever reads it: the jobs of a batch.
    found = json_text.unsound(data, twice, in_lists=False)
    if not (wrong := list(islice(found, MOST_ERRORS))):
        try:
            return msgspec.json.decode(sent, type=kind)
        except msgspec.ValidationError:
            found = validation_errors.in_body(data, kind)
        except msgspec.DecodeError:  # Half of a character is text for Python's decoder alone.
            found = json_text.unsound(data, twice)
        wrong = list(islice(found, MOST_ERRORS))
    raise invalid_parameters(wrong)


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


# --- parameters ------------------------------------------------------------------------------

_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
_BOOLEANS = {"true": (True,), "false": (False,)}


@cache
def _types(kind: type[Parameters]) -> Mapping[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _unknown(name: str, known: Mapping[str, Any], request: HttpRequest) -> Mistake:
    hint = f"Known: {', '.join(known)}." if known else "Leave it out."
    if request.method != "GET" and not known:
        hint = "Leave it out; say it in the body."
    return mistake(name[:80], "is an unknown parameter", hint)


def _parameter(name: str, text: str, kind: Any, found: list[Mistake]) -> Any:
    """The *text* of a parameter as a *kind*; what is wrong with it goes into *found*."""
    if get_origin(kind) is tuple:
        word, _ = get_args(kind)
        words = dict.fromkeys(text.split(",")) if text else ()
        return tuple(_parameter(name, it, word, found) for it in words)
    errors = []
    for value in _readings(text):
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            errors.append(error)
    worst = next((it for it in errors if ", got `" not in str(it)), errors[0])
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    allowed = bare if isinstance(bare, EnumType) else get_args(bare)
    found.append(validation_errors.in_value(worst, name, text, map(str, allowed)))
    return None


def _readings(text: str) -> Iterator[object]:
    """What *text* may be, the narrower first."""
    if _WHOLE.fullmatch(text):
        yield validation_errors.number(text)
    yield from _BOOLEANS.get(text, ())
    yield text


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
