"""The grammar of constraints: label selectors as Kubernetes has them, and a little more.

``arch = amd64``, ``zone in (a, b)``, ``gpu``, ``!spot``, ``memory-gb >= 32``,
``docker version>= 24.0``, ``host =~ rack-[0-9]+``; commas join requirements, but belong to a
pattern that is not in quotes.
As in Kubernetes, ``!=`` and ``notin`` also hold where the label is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from nodes import labels

LONGEST = 1024
LONGEST_VALUE = labels.LONGEST_VALUE
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
_QUOTED_PATTERN = r"""("[^"\n]+"|'[^'\n]+')"""
_REGEX = re.compile(rf"({KEY})\s*=~\s*(?:{_QUOTED_PATTERN}|(.+))", re.ASCII)
#: After ``=~``: a pattern in quotes, and nothing more of it.
_ENDS = re.compile(rf"=~\s*{_QUOTED_PATTERN}\s*(?:,|$)", re.ASCII)
#: What follows a pattern like another requirement.
_NEXT = re.compile(rf",(?:\s|!|{KEY}\s*(?:[=!<>]|\s(?:in|notin)\s*\(|\sversion[=!<>]))", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?", re.ASCII)
_VERSION = re.compile(
    r"v?([0-9]+(?:\.[0-9]+)*)"
    r"(?:[-~.]?(alpha|beta|rc|pre|dev|snapshot|nightly|a|b)[-.]?([0-9]*)(?![A-Za-z]))?.*",
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
                return f"{self.key} =~ {_quoted_pattern(self.values[0])}"
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
    for part in _split(text):
        if (match := _REGEX.fullmatch(part.strip())) and match[3]:
            _check_quotes(match[3])
    found = read(text)
    for requirement in found:
        _judge(requirement)
    return found


@lru_cache(maxsize=1024)
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
        return Requirement(match[1], "=~", (match[3] or _unquoted(match[2]),))
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
    """At the commas outside of parentheses and quotes; none splits a pattern without quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif text.startswith("=~", i) and not depth and not _ENDS.match(text, i):
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


def _quoted_pattern(pattern: str) -> str:
    if not _NEXT.search(pattern) and pattern[0] not in "\"'" and pattern == pattern.strip():
        return pattern
    return f"'{pattern}'" if '"' in pattern else f'"{pattern}"'


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


def _check_quotes(pattern: str) -> None:
    """Refuse a *pattern* without quotes that is meant to have some."""
    if _NEXT.search(pattern):
        raise BadSelector(
            f"has a comma in a pattern, where it joins nothing: {pattern[:80]!r}",
            "Put the pattern alone in quotes: key =~ 'pattern', other = value.",
        )
    if pattern[0] in "\"'":
        raise BadSelector(
            f"has a quote in front of a pattern, and none at its end alone: {pattern[:80]!r}",
            "Put the whole pattern in quotes, or write \\ before a quote that it begins with.",
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
    if _choices(plain.replace("(?:", "(")) > MOST_CHOICES:
        raise BadSelector("has a pattern that may take too long to match", simpler)
    try:
        _compiled(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadSelector(f"has a malformed pattern: {error}", "Correct the pattern.") from None


def _choices(plain: str) -> int:
    """Of alternatives one is tried after the other, so they add; what follows multiplies."""
    groups = [(0, 1)]
    for part in re.findall(r"[(|)*+?]|\{[0-9]*,[0-9]*\}", plain):
        before, choices = groups.pop()
        match part:
            case "(":
                groups += [(before, choices), (0, 1)]
            case "|":
                groups.append((before + choices, 1))
            case ")" if groups:
                outer, times = groups.pop()
                groups.append((outer, times * (before + choices)))
            case ")":
                groups.append((before, choices))
            case _:
                groups.append((before, choices * (2 if part == "?" else LONGEST_VALUE + 1)))
    return max(before + choices for before, choices in groups)


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


def _number(text: str | None) -> Decimal | None:
    match = _NUMBER.fullmatch(text) if text and len(text) <= LONGEST_VALUE else None
    return Decimal(match[0]) if match else None


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
