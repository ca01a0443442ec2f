"""What is wrong with what was sent, in one voice: field, value, what it may be, the cure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

UNSUPPORTED = re.compile("[\x00\ud800-\udfff]")

Mistake = dict[str, str]

#: Sentence and cure for what is no name of a job or namespace.
NOT_A_NAME = (
    "is not a name",
    "Use 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or digit.",
)

#: Sentence and cure by verdict, under pydantic's names; {limits} are the verdict's context.
_SENTENCES: Mapping[str, tuple[str, str]] = {
    "missing": ("is missing", "Add it."),
    "int_type": ("must be a whole number", "Write a number without quotes or fraction."),
    "int_from_float": ("must be a whole number", "Write it without a fraction."),
    "int_parsing_size": ("is too large", "Use a smaller number."),
    "string_type": ("must be text", "Put it in quotes."),
    "bool_type": ("must be true or false", "Write true or false, without quotes."),
    "enum": ("must be one of {expected}", "Use one of these."),
    "dict_type": ("must be an object", "Write names with values."),
    "model_type": ("must be an object", "Write names with values."),
    "list_type": ("must be a list", "Put it in brackets."),
    "greater_than_equal": ("must be at least {ge}", "Use {ge} or more."),
    "less_than_equal": ("must be at most {le}", "Use {le} or less."),
    "string_too_long": ("is longer than {max_length} characters", "Shorten it."),
    "string_too_short": ("is empty", "Say more."),
    "too_long": ("has more than {max_length} entries", "Shorten it."),
    "too_short": ("needs at least {min_length} entry", "Add what is missing."),
}
_WITHOUT_VALUE = {
    *("missing", "int_parsing_size"),
    *("too_long", "too_short", "string_too_long", "string_too_short"),
}


def mistake(path: str, message: str, hint: str) -> Mistake:
    return {"path": path, "message": message, "hint": hint}


def verdict(kind: str, path: str, value: str, limits: Mapping[str, object]) -> Mistake | None:
    """What is said of the *value*, as it is shown; None for a *kind* that nobody has worded."""
    if kind not in _SENTENCES:
        return None
    message, hint = (part.format(**limits) for part in _SENTENCES[kind])
    before = "" if kind in _WITHOUT_VALUE or not value else f"{value} "
    return mistake(path, before + message, hint)


def unknown(path: str, key: str, known: Iterable[str]) -> Mistake:
    """That nothing is called *key* there, and what was perhaps meant."""
    names = list(known)
    near = get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f"Known here: {', '.join(names)}." if names else "Send {} or nothing."
    if near:
        hint = f"Did you mean {near[0]!r}?"
    return mistake(under(path, key), f"is an unknown field {key[:80]!r}", hint)


def repeated(path: str, key: str) -> Mistake:
    return mistake(under(path, key), "occurs twice", "Keep one of them.")


def unsupported(path: str, character: str) -> Mistake:
    name = f"U+{ord(character):04X}"
    return mistake(path, f"contains the unsupported character {name}", "Remove it.")


def shown(value: object) -> str:
    """*value*, short; nothing of lists and objects."""
    if isinstance(value, dict | list | tuple):
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        return "the number"
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


def under(path: str, key: str) -> str:
    """The path of *key* within *path*."""
    short = key if len(key) <= 80 else f"{key[:77]}…"
    short = UNSUPPORTED.sub("�", short)
    return f"{path}.{short}" if path else short
