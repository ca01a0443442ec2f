"""What msgspec finds wrong with a request, in the words of `orchestrator.spec.mistakes`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args, get_origin

import msgspec

from orchestrator.spec import NAME
from orchestrator.spec.mistakes import (
    NOT_A_NAME,
    Mistake,
    mistake,
    shown,
    under,
    unknown,
    unsupported,
    verdict,
)

_KIND = re.compile(r"Expected `([a-z]+)[^`]*`, got `.*`")
_LIMIT = re.compile(r"Expected `(\w+)(?: \| \w+)*`(?: of length)? (>=|<=) ([0-9]+)")

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
    elif NAME.pattern in text:
        message, hint = NOT_A_NAME
        return mistake(path, f"{shown(value)} {message}", hint)
    return verdict(kind, path, shown(value), limits) or mistake(
        path, f"{shown(value)} cannot be used".strip(), "/api/v1/docs says what it may be."
    )


def in_body(data: Any, kind: Any, path: str = "", *, secret: bool = False) -> Iterator[Mistake]:
    """Everything in which *data*, which is sound, is no *kind*; of what is *secret*, no value."""
    if isinstance(data, dict) and hasattr(kind, "__struct_fields__"):
        fields = {it.encode_name: it for it in msgspec.structs.fields(kind)}
        yield from (unknown(path, name, fields) for name in data if name not in fields)
        for name, field in fields.items():
            if name in data:
                hide = secret or name in getattr(kind, "never_shown", ())
                yield from in_body(data[name], field.type, under(path, name), secret=hide)
            elif field.required:
                yield mistake(under(path, name), "is missing", "Add it.")
    elif isinstance(data, dict) and get_origin(kind) is dict:
        _, of_values = get_args(kind)
        for name, value in data.items():
            yield from in_body(value, of_values, under(path, name), secret=secret)
    else:
        # What a list holds is read by others, as the text that it is.
        read = [msgspec.Raw()] * len(data) if isinstance(data, list) else data
        try:
            msgspec.convert(read, kind)
        except msgspec.ValidationError as error:
            yield in_value(error, path, data if path and not secret else {})


def number(digits: str) -> int:
    """*digits* as a number, or as one that is just as much too large."""
    return int(digits[:40])
