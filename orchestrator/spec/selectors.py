"""The grammar of constraints: label selectors as Kubernetes has them, and a little more.

``arch = amd64``, ``zone in (a, b)``, ``gpu``, ``!spot``, ``memory-gb >= 32``,
``docker version>= 24.0``, ``host =~ rack-[0-9]+``; commas join requirements.
As in Kubernetes, ``!=`` and ``notin`` also hold where the label is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

LONGEST = 1024
LONGEST_VALUE = 256
LONGEST_PATTERN = 128
MOST_VALUES = 64
#: Paths a backtracking matcher may have to try: two stars over the longest value, and a little.
MOST_CHOICES = 2 * (LONGEST_VALUE + 1) ** 2

KEY = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?"
_VALUE = r"""(?:"[^"]{0,256}"|'[^']{0,256}'|[A-Za-z0-9._/:+@-]{1,256})"""
_SET = re.compile(rf"""({KEY})\s+(in|notin)\s*\(((?:"[^"]*"|'[^']*'|[^()"'])*)\)""", re.ASCII)
_COMPARE = re.compile(
    rf"({KEY})\s*(==|=|!=|>=|<=|>|<|\s(?:version(?:==|=|!=|>=|<=|>|<)))\s*({_VALUE})?", re.ASCII
)
_EXISTS = re.compile(rf"(!?)\s*({KEY})", re.ASCII)
_REGEX = re.compile(rf"({KEY})\s*=~\s*(.+)", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,9})?", re.ASCII)
_VERSION = re.compile(
    r"v?([0-9]{1,9}(?:\.[0-9]{1,9}){0,5})"
    r"(?:[-~.]?(alpha|beta|rc|pre|dev|snapshot|nightly|a|b)[-.]?([0-9]{0,9})(?![A-Za-z]))?.*",
    re.ASCII | re.IGNORECASE,
)
_KEY = re.compile(KEY, re.ASCII)


class BadSelector(ValueError):
    """The text is not a selector; ``hint`` says what to write."""

    def __init__(self, message: str, hint: str = "Write for example 'arch = amd64'.") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that a node's labels must satisfy."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({', '.join(map(_quoted, self.values))})"
            case "=~":
                return f"{self.key} =~ {self.values[0]}"
        return f"{self.key} {self.operator} {_quoted(self.values[0])}"

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels satisfies it."""
        return self.holds(labels.get(self.key))

    def holds(self, value: str | None) -> bool:
        """Whether a node whose label has this value, or none, satisfies it."""
        return OPERATORS[self.operator](value, self.values)


def parse(text: str) -> tuple[Requirement, ...]:
    """The requirements that *text*, as a user wrote it, joins; raises BadSelector."""
    if len(text) > LONGEST:
        raise BadSelector(f"is longer than {LONGEST} characters", "Split it into several.")
    if not text.strip():
        raise BadSelector("is empty", "Name a label, for example 'arch = amd64', or leave it out.")
    found = read(text)
    for requirement in found:
        _judge(requirement)
    return found


def read(text: str) -> tuple[Requirement, ...]:
    """The requirements in a *text* that was parsed before it was stored.

    It is not judged anew: its normal form may be longer, and the limits may have changed since.
    """
    found = tuple(_requirement(part.strip()) for part in _split(text))
    return tuple(dict.fromkeys(found))


def canonical(requirements: Iterable[Requirement]) -> str:
    """The one text for these requirements, so that equal ones are equal."""
    return ", ".join(map(str, requirements))


def is_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None


def _requirement(text: str) -> Requirement:
    if match := _REGEX.fullmatch(text):
        return Requirement(match[1], "=~", (match[2],))
    if match := _SET.fullmatch(text):
        return Requirement(match[1], match[2], _values(match[3]))
    if match := _COMPARE.fullmatch(text):
        return _comparison(match[1], match[2].strip(), match[3])
    if match := _EXISTS.fullmatch(text):
        return Requirement(match[2], "!" if match[1] else "exists")
    raise BadSelector(
        f"is not a requirement on a label: {text[:80]!r}",
        "Write 'key = value', 'key in (a, b)', 'key', '!key', 'key >= 4', 'key version>= 1.2' "
        "or 'key =~ pattern'; put values with other characters in quotes.",
    )


def _comparison(key: str, operator: str, quoted: str | None) -> Requirement:
    if quoted is None:
        raise BadSelector(f"has no value after {operator!r}", f"Write '{key} {operator} value'.")
    value = _unquoted(quoted)
    operator = {"==": "=", "version==": "version="}.get(operator, operator)
    return Requirement(key, operator, (value,))


def _values(text: str) -> tuple[str, ...]:
    parts = [part.strip() for part in _split(text)] if text.strip() else []
    if not parts or not all(re.fullmatch(_VALUE, part) for part in parts):
        raise BadSelector("has an empty or malformed list of values", "Write 'key in (a, b)'.")
    return tuple(sorted({_unquoted(part) for part in parts}))


def _split(text: str) -> list[str]:
    """At the commas that stand outside of parentheses and quotes; none splits a pattern."""
    parts, depth, quote, start = [], 0, "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif text.startswith("=~", i) and not depth:
            break
        elif char in "()":
            depth += 1 if char == "(" else -1
        elif char == "," and not depth:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def _unquoted(text: str) -> str:
    return text[1:-1] if text[0] in "\"'" else text


def _quoted(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._/:+@-]+", value, re.ASCII):
        return value
    return f"'{value}'" if '"' in value else f'"{value}"'


def _judge(one: Requirement) -> None:
    """Refuse what could never hold, and what would take too long to match."""
    if one.operator == "=~":
        _check_pattern(one.values[0])
    if len(one.values) > MOST_VALUES:
        raise BadSelector(f"lists more than {MOST_VALUES} values", "Label the nodes by group.")
    if one.operator in _ORDER and _number(one.values[0]) is None:
        raise BadSelector(
            f"compares with {one.values[0]!r}, which is not a number",
            f"Use a number, or '{one.key} version{one.operator} {one.values[0]}' to compare "
            "versions.",
        )
    if one.operator.startswith("version") and _version(one.values[0]) is None:
        raise BadSelector(
            f"compares with {one.values[0]!r}, which is not a version", "Write 1.2 or v1.2.3."
        )


def _check_pattern(pattern: str) -> None:
    """Refuse what a backtracking matcher could take long over, by counting its choices."""
    simpler = (
        "Use a simpler pattern: at most two of * and +, no repeated groups; or label the nodes."
    )
    if len(pattern) > LONGEST_PATTERN:
        raise BadSelector(f"has a pattern longer than {LONGEST_PATTERN} characters", simpler)
    # Escapes and classes count as one letter each, so that what is left speaks for itself.
    plain = re.sub(r"\\[^0-9]", "x", pattern)
    plain = re.sub(r"\[\^?\]?[^\]]*\]", "x", plain)
    if "\\" in plain or re.search(r"\(\?(?!:)", plain):
        raise BadSelector("has a pattern with references, look-around or flags", simpler)
    if re.search(r"\)[*+?{]", plain):
        raise BadSelector("has a pattern that repeats a group", simpler)
    plain = plain.replace("(?:", "(")
    choices = 2 ** plain.count("|")
    for repeat in re.findall(r"[*+?]|\{[0-9]*,[0-9]*\}", plain):
        choices *= 2 if repeat == "?" else LONGEST_VALUE + 1
    if choices > MOST_CHOICES:
        raise BadSelector("has a pattern that may take too long to match", simpler)
    try:
        _compiled(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadSelector(f"has a malformed pattern: {error}", "Correct the pattern.") from None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)


def _version(text: str | None) -> tuple[tuple[int, ...], int, str, int] | None:
    """Ordered as versions are: 1.10 after 1.9, 1.0-rc1 before 1.0, 1.0 equal to 1.0.0.

    What else follows the numbers, as in ``5.10.0-21-amd64``, does not count.
    """
    match = _VERSION.fullmatch(text) if text and len(text) <= LONGEST_VALUE else None
    if match is None:
        return None
    numbers = [int(number) for number in match[1].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    word = (match[2] or "").lower()
    return (tuple(numbers), 0 if word else 1, word, int(match[3] or 0))


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and _NUMBER.fullmatch(text) else None


_ORDER: Mapping[str, Callable[[int], bool]] = {
    ">": lambda sign: sign > 0,
    "<": lambda sign: sign < 0,
    ">=": lambda sign: sign >= 0,
    "<=": lambda sign: sign <= 0,
}
_ALL_ORDER: Mapping[str, Callable[[int], bool]] = {
    **_ORDER,
    "=": lambda sign: sign == 0,
    "!=": lambda sign: sign != 0,
}

Holds = Callable[[str | None, tuple[str, ...]], bool]


def _numeric(accepts: Callable[[int], bool]) -> Holds:
    def holds(value: str | None, values: tuple[str, ...]) -> bool:
        have, want = _number(value), _number(values[0])
        return have is not None and want is not None and accepts((have > want) - (have < want))

    return holds


def _versioned(accepts: Callable[[int], bool]) -> Holds:
    def holds(value: str | None, values: tuple[str, ...]) -> bool:
        have, want = _version(value), _version(values[0])
        return have is not None and want is not None and accepts((have > want) - (have < want))

    return holds


def _regex(value: str | None, values: tuple[str, ...]) -> bool:
    if value is None or len(value) > LONGEST_VALUE:
        return False
    return _compiled(values[0]).fullmatch(value) is not None


OPERATORS: Mapping[str, Holds] = {
    "exists": lambda value, _: value is not None,
    "!": lambda value, _: value is None,
    "=": lambda value, values: value == values[0],
    "!=": lambda value, values: value != values[0],
    "in": lambda value, values: value in values,
    "notin": lambda value, values: value not in values,
    "=~": _regex,
    **{operator: _numeric(accepts) for operator, accepts in _ORDER.items()},
    **{f"version{operator}": _versioned(accepts) for operator, accepts in _ALL_ORDER.items()},
}
