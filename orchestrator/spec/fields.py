"""The values that the fields of a job file may have, each with its bounds and what is said else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from orchestrator.lifecycle import JobType

from . import quantities, selectors
from .mistakes import NOT_A_NAME

LONGEST_ARGUMENT = 16 * 1024
YEAR = 366 * 86400.0
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)
_USER = re.compile(r"[a-z_]([a-z0-9_-]{0,30}[a-z0-9])?", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)


def mistake(message: str, hint: str) -> PydanticCustomError:
    """A mistake as pydantic reports it; braces of the user's text are only text."""
    return PydanticCustomError("muster", "{sentence}", {"sentence": message, "hint": hint})


def mistakes(found: Mapping[str, PydanticCustomError]) -> ValidationError:
    """Several mistakes at once, each at its path below what is being checked."""
    details = [InitErrorDetails(type=wrong, loc=(path,), input={}) for path, wrong in found.items()]
    return ValidationError.from_exception_data("mistakes", details)


def pointless(
    field: str, seconds: float, other: str, limit: float, why: str
) -> PydanticCustomError:
    """The time that *field* says has no effect because of *other*, which is shorter."""
    long, short = quantities.duration(seconds), quantities.duration(limit)
    return mistake(
        f"is {long}, but {other} is {short} and {why}",
        f"Raise {other} to {long}, or lower {field} to {short}.",
    )


def as_list(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise mistake("must be a list", "Write a list, for example [a, b].")
    return tuple(value)


def one_of(*words: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if not isinstance(value, str) or value not in words:
            raise mistake(f"must be one of {', '.join(words)}", f"Write {' or '.join(words)}.")
        return value

    return check


def _quantity(
    read: Callable[[object], float], at_least: float, at_most: float, least: str, most: str, eg: str
) -> Callable[[object], float]:
    def check(value: object) -> float:
        try:
            amount = read(value)
        except ValueError as error:
            raise mistake(str(error), f"Write for example {eg}.") from None
        if not at_least <= amount <= at_most:
            bound = f"at least {least}" if amount < at_least else f"at most {most}"
            raise mistake(f"must be {bound}", f"Use {least} to {most}.")
        return amount

    return check


def _duration(at_least: float, at_most: float, least: str, most: str) -> Callable[[object], float]:
    return _quantity(quantities.seconds, at_least, at_most, least, most, "30s, 10m or 1h30m")


def _bytes(at_least: int, least: str) -> Callable[[object], float]:
    return _quantity(quantities.byte_count, at_least, 2**50, least, "1PiB", "64MiB or 2GB")


_cpu = _quantity(quantities.millicores, 1, 10**9, "1m", "1000000", "500m, 0.5 or 2")
_AS_CPU = WithJsonSchema({"type": ["string", "number"], "examples": ["500m", 0.5, 2]})
_AS_BYTES = WithJsonSchema({"type": ["string", "integer"], "examples": ["64MiB", "2GB", 1048576]})
_AS_TIME = WithJsonSchema({"type": ["string", "number"], "examples": ["30s", "1h30m", 90]})

Cpu = Annotated[int, BeforeValidator(_cpu), _AS_CPU]
Memory = Annotated[int, BeforeValidator(_bytes(2**20, "1MiB")), _AS_BYTES]
Disk = Annotated[int, BeforeValidator(_bytes(0, "0")), _AS_BYTES]
Delay = Annotated[float, BeforeValidator(_duration(1, 7 * 86400, "1s", "7d")), _AS_TIME]
Limit = Annotated[float, BeforeValidator(_duration(1, YEAR, "1s", "366d")), _AS_TIME]
Wait = Annotated[float, BeforeValidator(_duration(0, YEAR, "0s", "366d")), _AS_TIME]
Grace = Annotated[float, BeforeValidator(_duration(0, 3600, "0s", "1h")), _AS_TIME]


def _selector(text: str) -> str:
    """The canonical text of a selector, which is what is stored."""
    try:
        canonical = selectors.canonical(selectors.parse(text))
    except selectors.BadSelector as error:
        raise mistake(str(error), error.hint) from None
    if len(canonical) > selectors.LONGEST:
        raise mistake(
            f"is {len(canonical)} characters in its normal form (a = b, c in (d, e)), and may "
            f"have {selectors.LONGEST}",
            "Split it into several, or label the nodes by group.",
        )
    return canonical


def _label_key(text: str) -> str:
    if not selectors.is_key(text):
        raise mistake(
            "is not the name of a label",
            "Use up to 128 ASCII letters, digits, '.', '_', '/' and '-', beginning and ending "
            "with a letter or digit.",
        )
    return text


def _name(text: str) -> str:
    if NAME.fullmatch(text) is None:
        raise mistake(*NOT_A_NAME)
    return text


def _user_name(text: str) -> str:
    if _USER.fullmatch(text) is None:
        raise mistake(
            "is not the name of a user",
            "Use up to 32 of a-z, 0-9, '_' and '-', as in /etc/passwd.",
        )
    if text == "root":
        raise mistake("would have all rights of the node", "Name another user.")
    return text


def _variable(text: str) -> str:
    if _VARIABLE.fullmatch(text) is None:
        raise mistake("is not a variable's name", "Use letters, digits and '_', no digit first.")
    if text.startswith(("LD_", "DYLD_")):
        raise mistake("would change how programs are loaded", "Leave it out.")
    if text.startswith("MUSTER_"):
        raise mistake("is set by Muster itself", "Use another name.")
    return text


def some_program(command: tuple[str, ...]) -> tuple[str, ...]:
    if command and not command[0].strip():
        raise mistake("begins with an empty text", "Name the program to run.")
    return command


def some_weight(weight: int) -> int:
    if weight == 0:
        raise mistake("says nothing", "Use a weight from -100 to 100 other than 0.")
    return weight


def _released(kind: JobType) -> JobType:
    if kind is not JobType.BATCH:
        raise mistake("comes later; this release runs batch jobs", "Write type: batch.")
    return kind


Name = Annotated[
    str,
    AfterValidator(_name),
    Field(max_length=63, json_schema_extra={"pattern": f"^{NAME.pattern}$"}),
]
UserName = Annotated[str, AfterValidator(_user_name), Field(max_length=32)]
Variable = Annotated[str, AfterValidator(_variable)]
Selector = Annotated[str, AfterValidator(_selector)]
LabelKey = Annotated[str, AfterValidator(_label_key)]
Argument = Annotated[str, Field(max_length=LONGEST_ARGUMENT)]
JobTypeWord = Annotated[
    JobType,
    Field(strict=False),
    AfterValidator(_released),
    BeforeValidator(one_of(*JobType)),
]
