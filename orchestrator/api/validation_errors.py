"""What msgspec finds wrong with a request, in the words of `orchestrator.spec.mistakes`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice

import msgspec

from orchestrator.spec.mistakes import (
    Mistake,
    mistake,
    repeated,
    shown,
    under,
    unknown,
    unsupported,
    verdict,
)
from orchestrator.spec.parsing import MOST_ERRORS, noting_repeats

_MISSING = re.compile(r"Object missing required field `(.*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_KIND = re.compile(r"Expected `([a-z]+)[^`]*`, got `.*`")
_LIMIT = re.compile(r"Expected `(\w+)(?: \| \w+)*`(?: of length)? (>=|<=) ([0-9]+)")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

#: Verdicts of `sentences`, by what msgspec expected instead.
_KINDS = {
    "str": "string_type",
    "int": "int_type",
    "bool": "bool_type",
    "object": "dict_type",
    "array": "list_type",
}
_LIMITS = {
    ("int", ">="): ("greater_than_equal", "ge"),
    ("int", "<="): ("less_than_equal", "le"),
    ("str", ">="): ("string_too_short", "min_length"),
    ("str", "<="): ("string_too_long", "max_length"),
    ("array", ">="): ("too_short", "min_length"),
    ("array", "<="): ("too_long", "max_length"),
}


def in_value(
    error: msgspec.ValidationError, path: str, value: object, words: Iterable[str] = ()
) -> Mistake:
    """What *error* says of the *value* at *path*, which may be one of *words* if there are any."""
    text = str(error).partition(" - at `")[0]
    kind, limits = "", {"expected": ", ".join(words)}
    if found := _LIMIT.fullmatch(text):
        kind, limit = _LIMITS[found[1], found[2]]
        limits[limit] = found[3]
    elif found := _KIND.fullmatch(text):
        kind = _KINDS.get(found[1], "")
    elif text.startswith("Invalid enum value"):
        kind = "enum"
    elif "out of range" in text:
        kind = "int_parsing_size"
    elif "matching regex" in text and "\0" in str(value):
        return unsupported(path, "\0")
    return verdict(kind, path, shown(value), limits) or mistake(
        path, f"{shown(value)} cannot be used".strip(), "/api/v1/docs says what it may be."
    )


def in_body(error: msgspec.ValidationError, body: bytes, kind: type) -> list[Mistake]:
    """What *error* says of *body*, which was to be a *kind*; or first that a name occurs twice."""
    with suppress(ValueError, RecursionError):  # It has another mistake, further on.
        if twice := names_repeated(body):
            return twice  # Nobody knows which of the two *error* is about.
    text, _, where = str(error).partition(" - at `$")
    path = where.rstrip("`").replace("[...]", "").replace("[", ".").replace("]", "").lstrip(".")
    if found := _MISSING.fullmatch(text):
        return [mistake(under(path, found[1]), "is missing", "Add it.")]
    if found := _UNKNOWN.fullmatch(text):
        return [unknown(path, found[1], kind.__struct_encode_fields__)]  # type: ignore[attr-defined]
    if path in getattr(kind, "never_shown", ()):
        return [in_value(error, path, {})]
    if "[...]" not in where:
        return [in_value(error, path, _at(body, path) if path else {})]
    found_in = in_value(error, path, {})
    return [{**found_in, "message": f"has an entry that {found_in['message']}"}]


def names_repeated(body: bytes) -> list[Mistake]:
    """The first names that occur twice in one object of *body*, but not within its lists."""
    twice: dict[int, list[str]] = {}
    return list(islice(_twice(_decoded(body, twice), twice, ""), MOST_ERRORS))


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


def _decoded(body: bytes | str, twice: dict[int, list[str]]) -> object:
    """*body* as values; what is repeated in an object comes into *twice*, by its identity."""
    # Numbers of any length: whoever reads them judges them.
    return json.loads(body, object_pairs_hook=noting_repeats(twice), parse_int=number)


def number(digits: str) -> int:
    """*digits* as a number, or as one that is just as much too large."""
    return int(digits[:40])


def _at(body: bytes, path: str) -> object:
    """What *body* has at *path*; an empty list, which shows nothing, when it cannot be read."""
    try:
        value = _decoded(body, {})
    except (ValueError, RecursionError):
        return []  # Its first mistake has been found, and it has another one further on.
    for part in path.split("."):
        value = value[int(part) if isinstance(value, list) else part]  # type: ignore[index]
    return value


def _twice(value: object, twice: Mapping[int, list[str]], path: str) -> Iterator[Mistake]:
    if isinstance(value, dict):
        yield from (repeated(path, key) for key in twice.get(id(value), ()))
        for key, inner in value.items():
            yield from _twice(inner, twice, under(path, key))
