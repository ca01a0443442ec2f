"""From text to a JobSpec, with every mistake named at once."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from nodes.errors import MusterError

from . import field_names
from .mistakes import (
    UNSUPPORTED,
    Mistake,
    mistake,
    repeated,
    shown,
    under,
    unsupported,
    verdict,
)
from .model import JobSpec

LARGEST = 256 * 1024
DEEPEST = 32
MOST_ERRORS = 100

_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


class InvalidSpec(MusterError):
    """The job specification has {count}."""

    code, status = "invalid-spec", 400
    hint = "Correct every path named in errors; nothing was stored."

    def __init__(self, errors: list[Mistake]) -> None:
        super().__init__(count="1 mistake" if len(errors) == 1 else f"{len(errors)} mistakes")
        self.errors = errors


class _Mistakes(Exception):
    def __init__(self, *errors: Mistake) -> None:
        self.errors = list(errors)


def parse(data: object) -> JobSpec:
    """*data* as a JobSpec; raises InvalidSpec with every mistake: path, message and hint."""
    return _parse(data, {})


def parse_json(text: bytes) -> JobSpec:
    """The JSON *text* as a JobSpec; raises InvalidSpec."""
    try:
        data, twice = _load(text)
    except _Mistakes as mistakes:
        raise InvalidSpec(mistakes.errors) from None
    return _parse(data, twice)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a job file."""
    schema = JobSpec.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Muster job file",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def noting_repeats(
    twice: dict[int, list[str]],
) -> Callable[[list[tuple[str, object]]], dict[str, object]]:
    """A hook for a JSON decoder that puts the names which one object repeats into *twice*.

    Keyed by identity: the decoder meets an object before anybody knows its path.
    """

    def collect(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) != len(pairs):
            times = Counter(key for key, _ in pairs)
            twice[id(made)] = sorted(key for key, n in times.items() if n > 1)
        return made

    return collect


def _parse(data: object, twice: Mapping[int, list[str]]) -> JobSpec:
    if not isinstance(data, dict):
        raise InvalidSpec([mistake("", "must be an object", "Write name: … and task: ….")])
    found: list[Mistake] = []
    try:
        found += _unsound(data, twice)
    except _Mistakes as mistakes:
        raise InvalidSpec(mistakes.errors) from None
    if found:
        raise InvalidSpec(found[:MOST_ERRORS])
    if tool := field_names.other_file(data):
        what = f"is a file of {tool}, and no job file of Muster"
        hint = (
            "A job file begins with name: and task:, as in"
            " name: hello, task: {command: [echo, hello]}."
        )
        raise InvalidSpec([mistake("", what, hint)])
    try:
        return JobSpec.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        raise InvalidSpec([_worded(it) for it in details[:MOST_ERRORS]]) from None


# --- text ------------------------------------------------------------------------------------


def _load(text: bytes) -> tuple[object, Mapping[int, list[str]]]:
    if len(text) > LARGEST:
        raise _Mistakes(
            mistake("", f"is {len(text)} bytes, and may have {LARGEST}", "Shorten the job file.")
        )
    if text.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise _Mistakes(mistake("", "begins with a byte order mark", "Save it as plain UTF-8."))
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Mistakes(
            mistake("", f"is not UTF-8 at byte {error.start}", "Save it as plain UTF-8.")
        ) from None
    if not decoded.strip():
        raise _Mistakes(mistake("", "is empty; it must be an object", "Send a job specification."))
    _check_depth(text)
    twice: dict[int, list[str]] = {}
    try:
        data = json.loads(
            decoded,
            object_pairs_hook=noting_repeats(twice),
            parse_constant=_no_constant,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _Mistakes(
            mistake("", f"is not JSON at {where}: {error.msg}", "Correct the text there.")
        ) from None
    return data, twice


def _check_depth(text: bytes) -> None:
    depth = 0
    for token in _STRUCTURE.finditer(text):
        first = token[0][:1]
        depth += (first in b"[{") - (first in b"]}")
        if depth > DEEPEST:
            raise _Mistakes(_too_deep())


def _no_constant(word: str) -> float:
    raise _Mistakes(mistake("", f"contains {word}, which is not JSON", "Use a finite number."))


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise _Mistakes(
            mistake("", f"contains an integer of {len(digits)} digits", "Use a smaller number.")
        )
    return int(digits)


# --- what no field may hold --------------------------------------------------------------------


def _unsound(data: object, twice: Mapping[int, list[str]]) -> Iterator[Mistake]:
    """What is wrong whatever the field; the walk keeps its own stack, so depth cannot hurt."""
    stack: list[tuple[str, object, int]] = [("", data, 1)]
    while stack:
        path, value, depth = stack.pop()
        if depth > DEEPEST + 1:
            raise _Mistakes(_too_deep())
        if isinstance(value, dict):
            for key in twice.get(id(value), ()):
                yield repeated(path, key)
            for key, inner in value.items():
                if not isinstance(key, str):
                    hint = "Put the name in quotes; YAML reads a bare `on` as true."
                    yield mistake(under(path, str(key)), "has a name that is not text", hint)
                    continue
                yield from _unsound_text(under(path, key), key)
                stack.append((under(path, key), inner, depth + 1))
        elif isinstance(value, list | tuple):
            stack += [(under(path, str(i)), inner, depth + 1) for i, inner in enumerate(value)]
        elif isinstance(value, str):
            yield from _unsound_text(path, value)
        elif isinstance(value, float) and not math.isfinite(value):
            yield mistake(path, "is not a finite number", "Use a finite number.")


def _unsound_text(path: str, text: str) -> Iterator[Mistake]:
    if found := UNSUPPORTED.search(text):
        yield unsupported(path, found[0])


def _too_deep() -> Mistake:
    return mistake("", f"is nested deeper than {DEEPEST} levels", "No job needs this: flatten it.")


# --- words -------------------------------------------------------------------------------------


def _worded(detail: ErrorDetails) -> Mistake:
    location = [str(part) for part in detail["loc"] if part != "[key]"]
    path, context = ".".join(location), detail.get("ctx", {})
    value = "" if "env" in location else shown(detail["input"])  # It may be a secret.
    if detail["type"] == "extra_forbidden":
        *parents, key = location
        what = f"is an unknown field {key[:80]!r}"
        return mistake(under(".".join(parents), key), what, field_names.cure(location))
    if detail["type"] == "muster":
        return mistake(path, f"{value} {context['sentence']}".strip(), str(context["hint"]))
    return verdict(detail["type"], path, value, context) or mistake(
        path, f"{value} {detail['msg']}".strip(), "See the manual of job files."
    )
