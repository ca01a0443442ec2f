"""The job specification as types.  Every field says its bounds; ``reading`` words the mistakes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from nodes.protocol.messages import Task
from nodes.protocol.resources import Resources
from orchestrator.lifecycle import JobType

from . import quantities, selectors

MOST_COUNT = 100_000
LONGEST_ARGUMENT = 16 * 1024
#: Command, environment and configuration together: an order must fit one frame.
LARGEST_TASK = 64 * 1024
YEAR = 366 * 86400.0
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)


class Approval(StrEnum):
    BID = "bid"
    NONE = "none"


class Backoff(StrEnum):
    CONSTANT = "constant"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class RetryOn(StrEnum):
    FAILED = "failed"
    LOST = "lost"


class OnLost(StrEnum):
    REPLACE = "replace"
    WAIT = "wait"


def mistake(message: str, hint: str) -> PydanticCustomError:
    """A mistake as pydantic reports it; braces of the user's text are only text."""
    return PydanticCustomError("muster", "{sentence}", {"sentence": message, "hint": hint})


def _list(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise mistake("must be a list", "Write a list, for example [a, b].")
    return tuple(value)


def _word(*words: str) -> Callable[[object], object]:
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
    """The canonical text of a selector, so that equal ones are equal."""
    try:
        return ", ".join(str(requirement) for requirement in selectors.parse(text))
    except selectors.BadSelector as error:
        raise mistake(str(error), error.hint) from None


def _label_key(text: str) -> str:
    if not selectors.is_key(text):
        raise mistake(
            "is not the name of a label",
            "Use up to 128 ASCII letters, digits, '.', '_', '/' and '-', beginning and ending "
            "with a letter or digit.",
        )
    return text


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise mistake(
            "is not a name",
            "Use 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or "
            "digit.",
        )
    return text


def _variable(text: str) -> str:
    if _VARIABLE.fullmatch(text) is None:
        raise mistake("is not a variable's name", "Use letters, digits and '_', no digit first.")
    if text.startswith(("LD_", "DYLD_")):
        raise mistake("would change how programs are loaded", "Leave it out.")
    if text.startswith("MUSTER_"):
        raise mistake("is set by Muster itself", "Use another name.")
    return text


def _some_program(command: tuple[str, ...]) -> tuple[str, ...]:
    if command and not command[0].strip():
        raise mistake("begins with an empty text", "Name the program to run.")
    return command


def _some_weight(weight: int) -> int:
    if weight == 0:
        raise mistake("says nothing", "Use a weight from -100 to 100 other than 0.")
    return weight


def _released(kind: JobType) -> JobType:
    if kind is not JobType.BATCH:
        raise mistake("comes later; this release runs batch jobs", "Write type: batch.")
    return kind


Selector = Annotated[str, AfterValidator(_selector)]
LabelKey = Annotated[str, AfterValidator(_label_key)]
Argument = Annotated[str, Field(max_length=LONGEST_ARGUMENT)]
JobTypeWord = Annotated[
    JobType,
    Field(strict=False),
    AfterValidator(_released),
    BeforeValidator(_word(*JobType)),
]


class _Part(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, ignored_types=(cached_property,)
    )


class Needs(_Part):
    """What one execution needs: cpu in millicores, memory and disk in bytes, gpu in devices."""

    cpu: Cpu = 100
    memory: Memory = 64 * 2**20
    disk: Disk = 0
    gpu: Annotated[int, Field(ge=0, le=64)] = 0


class TaskSpec(_Part):
    """What an execution runs, by which driver."""

    driver: Annotated[str, Field(max_length=63), AfterValidator(_name)] = "process"
    command: Annotated[
        tuple[Argument, ...],
        AfterValidator(_some_program),
        BeforeValidator(_list, json_schema_input_type=list[Argument]),
        Field(min_length=1, max_length=256),
    ]
    env: Annotated[
        dict[
            Annotated[str, AfterValidator(_variable)],
            Annotated[str, Field(max_length=LONGEST_ARGUMENT)],
        ],
        Field(max_length=256),
    ] = {}
    config: Annotated[
        dict[LabelKey, Annotated[str, Field(max_length=4096)]], Field(max_length=64)
    ] = {}
    resources: Needs = Needs()

    @model_validator(mode="after")
    def _fits_a_frame(self) -> Self:
        texts = (*self.command, *self.env, *self.env.values(), *self.config.values())
        size = sum(len(text.encode()) for text in texts)
        if size > LARGEST_TASK:
            raise mistake(
                f"is {size} bytes of command, env and config, and may have {LARGEST_TASK}",
                "Put long scripts and data into files that the task reads.",
            )
        return self


class Affinity(_Part):
    """A preference: nodes that match gain (or, below zero, lose) points."""

    match: Selector
    weight: Annotated[int, Field(ge=-100, le=100), AfterValidator(_some_weight)] = 50


class Spread(_Part):
    """A preference for even use of the values of a label."""

    over: LabelKey
    weight: Annotated[int, Field(ge=1, le=100)] = 50


def _words(kind: type[StrEnum]) -> Any:
    return BeforeValidator(_word(*kind))


def _sorted_once(words: tuple[RetryOn, ...]) -> tuple[RetryOn, ...]:
    return tuple(sorted(set(words)))


class Retry(_Part):
    """How often and when a slot is tried again.  ``attempts`` counts the first one too."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    backoff: Annotated[Backoff, Field(strict=False), _words(Backoff)] = Backoff.EXPONENTIAL
    delay: Delay = 5.0
    max_delay: Delay = 300.0
    on: Annotated[
        tuple[Annotated[RetryOn, Field(strict=False), _words(RetryOn)], ...],
        AfterValidator(_sorted_once),
        BeforeValidator(_list, json_schema_input_type=list[RetryOn]),
        Field(max_length=2),
    ] = (RetryOn.FAILED, RetryOn.LOST)


class Timeouts(_Part):
    """Seconds, or None for no limit: of one attempt, of waiting for a place, of the whole."""

    execution: Limit | None = None
    queue: Wait | None = None
    total: Limit | None = None


class JobSpec(_Part):
    """What the user wants, checked."""

    name: Annotated[str, AfterValidator(_name), Field(max_length=63)]
    type: JobTypeWord = JobType.BATCH
    count: Annotated[int, Field(ge=0, le=MOST_COUNT)] = 1
    priority: Annotated[int, Field(ge=1, le=100)] = 50
    approval: Annotated[Approval, Field(strict=False), _words(Approval)] = Approval.BID
    ask: Annotated[int, Field(ge=1, le=10)] = 1
    labels: Annotated[
        dict[LabelKey, Annotated[str, Field(max_length=selectors.LONGEST_VALUE)]],
        Field(max_length=64),
    ] = {}
    task: TaskSpec
    constraints: Annotated[
        tuple[Selector, ...],
        BeforeValidator(_list, json_schema_input_type=list[str]),
        Field(max_length=64),
    ] = ()
    affinities: Annotated[
        tuple[Affinity, ...],
        BeforeValidator(_list, json_schema_input_type=list[Affinity]),
        Field(max_length=32),
    ] = ()
    spread: Annotated[
        tuple[Spread, ...],
        BeforeValidator(_list, json_schema_input_type=list[Spread]),
        Field(max_length=8),
    ] = ()
    retry: Retry = Retry()
    timeouts: Timeouts = Timeouts()
    on_lost: Annotated[OnLost, Field(strict=False), _words(OnLost)] = OnLost.REPLACE
    grace: Grace = 10.0

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.approval is Approval.NONE and self.ask > 1:
            raise mistake(
                f"ask is {self.ask}, but approval none asks nobody",
                "Write approval: bid or ask: 1.",
            )
        return self

    @cached_property
    def resources(self) -> Resources:
        """What one execution needs, as the protocol says it."""
        needs = self.task.resources
        return Resources(needs.cpu, needs.memory, needs.disk, needs.gpu)

    @cached_property
    def requirements(self) -> tuple[selectors.Requirement, ...]:
        """The constraints, read."""
        parts = (selectors.parse(text) for text in self.constraints)
        return tuple(dict.fromkeys(one for part in parts for one in part))

    def protocol_task(self, extra_env: Mapping[str, str] | None = None) -> Task:
        """The task as it is sent to a node; *extra_env* goes over the user's variables."""
        task = self.task
        return Task(task.driver, task.command, {**task.env, **(extra_env or {})}, dict(task.config))
