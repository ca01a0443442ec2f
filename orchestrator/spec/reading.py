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

from orchestrator.errors import InvalidSpec

from . import field_names
from .model import JobSpec

LARGEST = 256 * 1024
DEEPEST = 32
MOST_ERRORS = 100

_UNSUPPORTED = re.compile("[\x00\ud800-\udfff]")
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


class _Mistakes(Exception):
    def __init__(self, *errors: dict[str, str]) -> None:
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
        raise InvalidSpec([_error("", "must be an object", "Write name: … and task: ….")])
    found: list[dict[str, str]] = []
    try:
        found += _unsound(data, twice)
    except _Mistakes as mistakes:
        raise InvalidSpec(mistakes.errors) from None
    if found:
        raise InvalidSpec(found[:MOST_ERRORS])
    try:
        return JobSpec.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        raise InvalidSpec([_worded(it) for it in details[:MOST_ERRORS]]) from None


# --- text ------------------------------------------------------------------------------------


def _load(text: bytes) -> tuple[object, Mapping[int, list[str]]]:
    if len(text) > LARGEST:
        raise _Mistakes(
            _error("", f"is {len(text)} bytes, and may have {LARGEST}", "Shorten the job file.")
        )
    if text.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise _Mistakes(_error("", "begins with a byte order mark", "Save it as plain UTF-8."))
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Mistakes(
            _error("", f"is not UTF-8 at byte {error.start}", "Save it as plain UTF-8.")
        ) from None
    if not decoded.strip():
        raise _Mistakes(_error("", "is empty; it must be an object", "Send a job specification."))
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
            _error("", f"is not JSON at {where}: {error.msg}", "Correct the text there.")
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
    raise _Mistakes(_error("", f"contains {word}, which is not JSON", "Use a finite number."))


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise _Mistakes(
            _error("", f"contains an integer of {len(digits)} digits", "Use a smaller number.")
        )
    return int(digits)


# --- what no field may hold --------------------------------------------------------------------


def _unsound(data: object, twice: Mapping[int, list[str]]) -> Iterator[dict[str, str]]:
    """What is wrong whatever the field; the walk keeps its own stack, so depth cannot hurt."""
    stack: list[tuple[str, object, int]] = [("", data, 1)]
    while stack:
        path, value, depth = stack.pop()
        if depth > DEEPEST + 1:
            raise _Mistakes(_too_deep())
        if isinstance(value, dict):
            for key in twice.get(id(value), ()):
                yield _error(_under(path, key), "occurs twice", "Keep one of them.")
            for key, inner in value.items():
                if not isinstance(key, str):
                    hint = "Put the name in quotes; YAML reads a bare `on` as true."
                    yield _error(_under(path, str(key)), "has a name that is not text", hint)
                    continue
                yield from _unsound_text(_under(path, key), key)
                stack.append((_under(path, key), inner, depth + 1))
        elif isinstance(value, list | tuple):
            stack += [(_under(path, str(i)), inner, depth + 1) for i, inner in enumerate(value)]
        elif isinstance(value, str):
            yield from _unsound_text(path, value)
        elif isinstance(value, float) and not math.isfinite(value):
            yield _error(path, "is not a finite number", "Use a finite number.")


def _unsound_text(path: str, text: str) -> Iterator[dict[str, str]]:
    if found := _UNSUPPORTED.search(text):
        name = f"U+{ord(found[0]):04X}"
        yield _error(path, f"contains the unsupported character {name}", "Remove it.")


def _too_deep() -> dict[str, str]:
    return _error("", f"is nested deeper than {DEEPEST} levels", "No job needs this: flatten it.")


# --- words -------------------------------------------------------------------------------------

#: How pydantic's verdicts read; {limits} are its context.
_SENTENCES: Mapping[str, tuple[str, str]] = {
    "missing": ("is missing", "Add it."),
    "int_type": ("must be a whole number", "Write a number without quotes or fraction."),
    "int_from_float": ("must be a whole number", "Write it without a fraction."),
    "int_parsing_size": ("is too large", "Use a smaller number."),
    "string_type": ("must be text", "Put it in quotes."),
    "dict_type": ("must be an object", "Write names with values."),
    "model_type": ("must be an object", "Write names with values."),
    "greater_than_equal": ("must be at least {ge}", "Use {ge} or more."),
    "less_than_equal": ("must be at most {le}", "Use {le} or less."),
    "string_too_long": ("is longer than {max_length} characters", "Shorten it."),
    "too_long": ("has more than {max_length} entries", "Shorten it."),
    "too_short": ("needs at least {min_length} entry", "Add what is missing."),
}


def _worded(detail: ErrorDetails) -> dict[str, str]:
    location = [str(part) for part in detail["loc"] if part != "[key]"]
    path, value, context = ".".join(location), detail["input"], detail.get("ctx", {})
    if detail["type"] == "extra_forbidden":
        return _error(
            path, f"is an unknown field {location[-1][:80]!r}", field_names.cure(location)
        )
    if detail["type"] == "muster":
        message, hint = str(context["sentence"]), str(context["hint"])
    elif detail["type"] in _SENTENCES:
        message, hint = (part.format(**context) for part in _SENTENCES[detail["type"]])
    else:
        message, hint = detail["msg"], "See the manual of job files."
    if detail["type"] not in {"missing", "too_long", "string_too_long", "too_short"}:
        shown = _shown(value, location)
        message = f"{shown} {message}" if shown else message
    return _error(path, message, hint)


def _shown(value: object, location: list[str]) -> str:
    """*value*, short; nothing for objects, and nothing that may be a secret."""
    if isinstance(value, dict | list | tuple) or "env" in location:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        return "the number"
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _under(path: str, key: str) -> str:
    shown = key if len(key) <= 80 else f"{key[:77]}…"
    shown = _UNSUPPORTED.sub("�", shown)
    return f"{path}.{shown}" if path else shown


def _error(path: str, message: str, hint: str) -> dict[str, str]:
    return {"path": path, "message": message, "hint": hint}
