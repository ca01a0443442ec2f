"""JSON that was sent, read strictly: what is odd in it is refused, whatever it is to be."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from .mistakes import UNSUPPORTED, Mistake, mistake, repeated, under, unsupported

DEEPEST = 32

#: By identity of the object, the names that occur in it more than once.
Repeats = Mapping[int, list[str]]

_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


class NotJson(Exception):
    """The text {what}."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


def load(text: bytes, *, deepest: int = DEEPEST) -> tuple[object, Repeats]:
    """What *text* says, and the names that it repeats; raises NotJson."""
    if text.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise NotJson("begins with a byte order mark", "Save it as plain UTF-8.")
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotJson(f"is not UTF-8 at byte {error.start}", "Save it as plain UTF-8.") from None
    if not decoded.strip():
        raise NotJson("is empty; it must be an object", "Send a JSON object.")
    _check_depth(text, deepest)
    twice: dict[int, list[str]] = {}
    try:
        data = json.loads(
            decoded,
            object_pairs_hook=_noting_repeats(twice),
            parse_constant=_no_constant,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise NotJson(f"is not JSON at {where}", f"Correct the text there: {error.msg}.") from None
    return data, twice


def unsound(data: object, twice: Repeats, *, in_lists: bool = True) -> Iterator[Mistake]:
    """What is wrong with *data* whatever the field, *in_lists*, too; raises NotJson."""
    # The walk keeps its own stack, so depth cannot hurt.
    stack: list[tuple[str, object, int]] = [("", data, 1)]
    while stack:
        path, value, depth = stack.pop()
        if depth > DEEPEST + 1:
            raise _too_deep(DEEPEST)
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
        elif isinstance(value, list | tuple) and in_lists:
            stack += [(under(path, str(i)), inner, depth + 1) for i, inner in enumerate(value)]
        elif isinstance(value, str):
            yield from _unsound_text(path, value)
        elif isinstance(value, float) and not math.isfinite(value):
            yield mistake(path, "is not a finite number", "Use a finite number.")


def _noting_repeats(
    twice: dict[int, list[str]],
) -> Callable[[list[tuple[str, object]]], dict[str, object]]:
    """A hook that notes repeats by identity: it meets an object before anybody knows its path."""

    def collect(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) != len(pairs):
            times = Counter(key for key, _ in pairs)
            twice[id(made)] = sorted(key for key, n in times.items() if n > 1)
        return made

    return collect


def _check_depth(text: bytes, deepest: int) -> None:
    depth = 0
    for token in _STRUCTURE.finditer(text):
        first = token[0][:1]
        depth += (first in b"[{") - (first in b"]}")
        if depth > deepest:
            raise _too_deep(deepest)


def _no_constant(word: str) -> float:
    raise NotJson(f"contains {word}, which is not JSON", "Use a finite number.")


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise NotJson(f"contains an integer of {len(digits)} digits", "Use a smaller number.")
    return int(digits)


def _unsound_text(path: str, text: str) -> Iterator[Mistake]:
    if found := UNSUPPORTED.search(text):
        yield unsupported(path, found[0])


def _too_deep(deepest: int) -> NotJson:
    return NotJson(f"is nested deeper than {deepest} levels", "Nothing needs this: flatten it.")
