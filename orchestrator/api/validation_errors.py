"""What is wrong with a request, in our words: the field, its value, what it may be, the cure.

Parameters are read by pydantic, bodies by msgspec; here are the sentences for what either says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from itertools import islice
from typing import Any

import msgspec

from orchestrator.spec.reading import MOST_ERRORS, noting_repeats

Mistake = dict[str, str]


def mistake(path: str, message: str, hint: str) -> Mistake:
    return {"path": path, "message": message, "hint": hint}


def shown(value: object) -> str:
    """*value*, short; nothing of lists and objects."""
    if isinstance(value, dict | list):
        return ""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


# --- parameters ------------------------------------------------------------------------------

#: Sentence and cure by pydantic's verdict; {limits} are its context.
_VERDICTS: Mapping[str, tuple[str, str]] = {
    "int_parsing": ("must be a whole number", "Write digits alone."),
    "int_parsing_size": ("is too large", "Use a smaller number."),
    "greater_than_equal": ("must be at least {ge}", "Use {ge} or more."),
    "less_than_equal": ("must be at most {le}", "Use {le} or less."),
    "string_too_long": ("is longer than {max_length} characters", "Shorten it."),
    "bool_parsing": ("must be true or false", "Write true or false."),
    "literal_error": ("must be {expected}", "Use one of these."),
}
_WITHOUT_VALUE = {"int_parsing_size", "string_too_long"}


def in_parameter(detail: Mapping[str, Any], given: Mapping[str, str]) -> Mistake:
    """What ninja found, as one *detail* of its ValidationError, among the *given* parameters."""
    path, kind = str(detail["loc"][-1]), detail["type"]
    if kind not in _VERDICTS:
        return mistake(path, detail["msg"], "/api/v1/openapi.json says what it may be.")
    message, hint = (part.format(**detail.get("ctx", {})) for part in _VERDICTS[kind])
    value = "" if kind in _WITHOUT_VALUE else shown(given.get(path, ""))
    return mistake(path, f"{value} {message}".strip(), hint)


# --- bodies ----------------------------------------------------------------------------------

_MISSING = re.compile(r"Object missing required field `(.*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_KIND = re.compile(r"Expected `([a-z]+)[^`]*`, got `.*`")
_LIMIT = re.compile(r"Expected `\w+`( of length)? (>=|<=) ([0-9]+)")

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

_KINDS = {
    "str": ("text", "Put it in quotes."),
    "int": ("a whole number", "Write a number without quotes or fraction."),
    "bool": ("true or false", "Write it without quotes."),
    "object": ("an object", "Write names with values."),
    "array": ("a list", "Put it in brackets."),
}


def in_body(error: msgspec.ValidationError, body: bytes, kind: type) -> list[Mistake]:
    """What *error* says of *body*, which was to be a *kind*; or first that a name occurs twice."""
    with suppress(ValueError, RecursionError):  # It has another mistake, further on.
        if twice := repeated(body):
            return twice  # Nobody knows which of the two *error* is about.
    text, _, where = str(error).partition(" - at `$")
    path = where.rstrip("`").replace("[...]", "").replace("[", ".").replace("]", "").lstrip(".")
    if "[...]" not in where:
        return [_in_field(text, path, shown(_at(body, path)) if path else "", kind)]
    found = _in_field(text, path, "", kind)
    return [{**found, "message": f"has an entry that {found['message']}"}]


def _in_field(text: str, path: str, value: str, kind: type) -> Mistake:
    if found := _MISSING.fullmatch(text):
        return mistake(_under(path, found[1]), "is missing", "Add it.")
    if found := _UNKNOWN.fullmatch(text):
        return _unknown(path, found[1], kind)
    if (found := _KIND.fullmatch(text)) and found[1] in _KINDS:
        name, hint = _KINDS[found[1]]
        return mistake(path, f"{value} must be {name}".strip(), hint)
    if found := _LIMIT.fullmatch(text):
        return _beyond(path, value, *found.groups())
    if "matching regex" in text and "\\u0000" in value:
        return mistake(path, "contains the unsupported character U+0000", "Remove it.")
    return mistake(path, text, "/api/v1/openapi.json says what it may be.")


def repeated(body: bytes) -> list[Mistake]:
    """The first names that occur twice in one object of *body*, but not within its lists."""
    twice: dict[int, list[str]] = {}
    data = _decoded(body, twice)
    found = islice(_twice(data, twice, ""), MOST_ERRORS)
    return [mistake(path, "occurs twice", "Keep one of them.") for path in found]


def undecodable(error: Exception, body: bytes) -> str:
    """Where *body* ceases to be JSON, as a sentence."""
    try:
        _decoded(body.decode(), {})
    except UnicodeDecodeError as found:
        return f"The body is not UTF-8 at byte {found.start}."
    except json.JSONDecodeError as found:
        return f"The body is not JSON at line {found.lineno}, column {found.colno}."
    except RecursionError:
        return "The body is nested deeper than any request needs."
    if _SURROGATE.search(body):
        return "The body is not JSON: it has half of a character."
    return f"The body is not JSON: {error}."


def _unknown(path: str, field: str, kind: type) -> Mistake:
    known = [it.encode_name for it in msgspec.structs.fields(kind)]
    near = get_close_matches(field, known, n=1, cutoff=0.5)
    hint = f"Known here: {', '.join(known)}." if known else "Send {} or nothing."
    if near:
        hint = f"Did you mean {near[0]!r}?"
    return mistake(_under(path, field), "is an unknown field", hint)


def _beyond(path: str, value: str, length: str | None, which: str, limit: str) -> Mistake:
    if length and which == "<=":
        return mistake(path, f"is longer than {limit} characters", "Shorten it.")
    if length:
        short = "is empty" if limit == "1" else f"is shorter than {limit} characters"
        return mistake(path, short, "Say more.")
    if which == "<=":
        return mistake(path, f"{value} must be at most {limit}", f"Use {limit} or less.")
    return mistake(path, f"{value} must be at least {limit}", f"Use {limit} or more.")


def _decoded(body: bytes | str, twice: dict[int, list[str]]) -> object:
    """*body* as values; what is repeated in an object comes into *twice*, by its identity."""
    # Numbers of any length: whoever reads them judges them.
    return json.loads(body, object_pairs_hook=noting_repeats(twice), parse_int=_number)


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) <= 40 else digits


def _at(body: bytes, path: str) -> object:
    """What *body* has at *path*; an empty list, which shows nothing, when it cannot be read."""
    try:
        value = _decoded(body, {})
    except (ValueError, RecursionError):
        return []  # Its first mistake has been found, and it has another one further on.
    for part in path.split("."):
        value = value[int(part) if isinstance(value, list) else part]  # type: ignore[index]
    return value


def _twice(value: object, twice: Mapping[int, list[str]], path: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (_under(path, key) for key in twice.get(id(value), ()))
        for key, inner in value.items():
            yield from _twice(inner, twice, _under(path, key))


def _under(path: str, key: str) -> str:
    return f"{path}.{key[:80]}" if path else key[:80]
