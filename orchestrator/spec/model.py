"""The job specification as types.  Every field says its bounds; ``parsing`` words the mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Annotated, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from nodes.labels import OWN
from nodes.protocol import codec
from nodes.protocol.messages import MAX_FRAME, Task
from nodes.protocol.resources import Resources
from nodes.protocol.secret_references import ATTRIBUTE, names
from orchestrator.lifecycle import JobType

from . import drivers, selectors
from .fields import (
    LONGEST_ARGUMENT,
    Argument,
    Cpu,
    Delay,
    Disk,
    Grace,
    JobTypeWord,
    LabelKey,
    Limit,
    Memory,
    Name,
    Selector,
    UserName,
    Variable,
    Wait,
    as_list,
    mistake,
    mistakes,
    one_of,
    pointless,
    some_program,
    some_weight,
)
from .secrets import checked_references

MOST_COUNT = 100_000
#: Command, environment and configuration together, in bytes.
LARGEST_TASK = 64 * 1024
#: The same as JSON, which may be six times as much: an order must fit one frame, in which this is
#: left for its ids, its amounts and the variables that Muster adds.
LARGEST_SENT = MAX_FRAME - 4096
#: How long a slot waits before it is tried again, unless somebody says otherwise.
DELAY = 5.0
_ENDS = "ends the job before"


class Approval(StrEnum):
    BID = "bid"
    NONE = "none"


class Backoff(StrEnum):
    CONSTANT = "constant"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class OnLost(StrEnum):
    REPLACE = "replace"
    WAIT = "wait"
    FAIL = "fail"


class Network(StrEnum):
    HOST = "host"
    NONE = "none"


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

    driver: Name = "process"
    command: Annotated[
        tuple[Argument, ...],
        AfterValidator(some_program),
        BeforeValidator(as_list, json_schema_input_type=list[Argument]),
        Field(min_length=1, max_length=256),
    ]
    env: Annotated[
        dict[
            Variable,
            Annotated[str, Field(max_length=LONGEST_ARGUMENT)],
        ],
        Field(max_length=256),
        AfterValidator(checked_references),
    ] = {}
    config: Annotated[
        dict[LabelKey, Annotated[str, Field(max_length=4096)]],
        Field(max_length=64),
        AfterValidator(drivers.checked_config),
    ] = {}
    resources: Needs = Needs()
    run_as: UserName | None = None
    network: Annotated[Network, Field(strict=False), BeforeValidator(one_of(*Network))] = (
        Network.HOST
    )

    @model_validator(mode="after")
    def _fits_a_frame(self) -> Self:
        texts = (*self.command, *self.env, *self.env.values(), *self.config.values())
        size = sum(len(text.encode()) for text in texts)
        if size > LARGEST_TASK:
            raise mistake(
                f"is {size} bytes of command, env and config, and may have {LARGEST_TASK}",
                "Put long scripts and data into files that the task reads.",
            )
        sent = codec.size(self.as_message())
        if sent > LARGEST_SENT:
            raise mistake(
                f"takes {sent} bytes of command, env and config when it is sent to a node, and "
                f"may take {LARGEST_SENT}",
                "A control character takes six bytes there, a quote two: put such data into "
                "files that the task reads.",
            )
        return self

    @cached_property
    def secrets(self) -> dict[str, str]:
        """The secrets that it names, by variable."""
        return names(self.env)

    def as_message(self, extra_env: Mapping[str, str] | None = None) -> Task:
        """The task as it is sent to a node; *extra_env* goes over the user's variables."""
        env = {**self.env, **(extra_env or {})}
        network = "" if self.network is Network.HOST else self.network.value
        return Task(self.driver, self.command, env, dict(self.config), self.run_as or "", network)


class Affinity(_Part):
    """A preference: nodes that match gain (or, below zero, lose) points."""

    match: Selector
    weight: Annotated[int, Field(ge=-100, le=100), AfterValidator(some_weight)] = 50


class Spread(_Part):
    """A preference for even use of the values of a label."""

    over: LabelKey
    weight: Annotated[int, Field(ge=1, le=100)] = 50


class Retry(_Part):
    """How often and when a slot is tried again.  ``attempts`` counts the first one too.

    An interruption is none of them: it is said apart how many of those a slot may have.
    """

    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    backoff: Annotated[Backoff, Field(strict=False), BeforeValidator(one_of(*Backoff))] = (
        Backoff.EXPONENTIAL
    )
    delay: Delay = DELAY
    max_delay: Delay = 300.0
    max_interruptions: Annotated[int, Field(ge=0, le=10_000)] = 100

    @model_validator(mode="after")
    def _delay_is_within_its_limit(self) -> Self:
        if self.delay <= self.max_delay:
            return self
        if "max_delay" not in self.model_fields_set:
            return self.model_copy(update={"max_delay": self.delay})
        most, why = self.max_delay, "limits it"
        raise mistakes(
            {"delay": pointless("retry.delay", self.delay, "retry.max_delay", most, why)}
        )


class Timeouts(_Part):
    """Seconds, or None for no limit: of one attempt, of waiting for a place, of the whole."""

    execution: Limit | None = None
    queue: Wait | None = None
    total: Limit | None = None

    @model_validator(mode="after")
    def _parts_are_within_the_whole(self) -> Self:
        limits, total = {"execution": self.execution, "queue": self.queue}, self.total
        if total is None:
            return self
        wrong = {
            name: pointless(f"timeouts.{name}", limit, "timeouts.total", total, _ENDS)
            for name, limit in limits.items()
            if limit is not None and limit > total
        }
        if wrong:
            raise mistakes(wrong)
        return self


class JobBody(_Part):
    """What of a job makes a version: how it runs, and neither how it is called nor how often."""

    type: JobTypeWord = JobType.BATCH
    approval: Annotated[Approval, Field(strict=False), BeforeValidator(one_of(*Approval))] = (
        Approval.BID
    )
    ask: Annotated[int, Field(ge=1, le=10)] = 1
    task: TaskSpec
    constraints: Annotated[
        tuple[Selector, ...],
        BeforeValidator(as_list, json_schema_input_type=list[str]),
        Field(max_length=64),
    ] = ()
    affinities: Annotated[
        tuple[Affinity, ...],
        BeforeValidator(as_list, json_schema_input_type=list[Affinity]),
        Field(max_length=32),
    ] = ()
    spread: Annotated[
        tuple[Spread, ...],
        BeforeValidator(as_list, json_schema_input_type=list[Spread]),
        Field(max_length=8),
    ] = ()
    retry: Retry = Retry()
    timeouts: Timeouts = Timeouts()
    on_lost: Annotated[OnLost, Field(strict=False), BeforeValidator(one_of(*OnLost))] = (
        OnLost.REPLACE
    )
    grace: Grace = 10.0

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.approval is Approval.NONE and self.ask > 1:
            raise mistake(
                f"ask is {self.ask}, but approval none asks nobody",
                "Write approval: bid or ask: 1.",
            )
        retry, total = self.retry, self.timeouts.total
        # The default delay is nothing that somebody has asked for.
        if total is not None and retry.attempts > 1 and retry.delay > max(total, DELAY):
            wrong = pointless("retry.delay", retry.delay, "timeouts.total", total, _ENDS)
            raise mistakes({"retry.delay": wrong})
        return self

    @cached_property
    def resources(self) -> Resources:
        """What one execution needs, as the protocol says it."""
        needs = self.task.resources
        return Resources(needs.cpu, needs.memory, needs.disk, needs.gpu)

    @cached_property
    def requirements(self) -> tuple[selectors.Requirement, ...]:
        """The constraints, read, and what the task cannot be walled off without."""
        parts = (selectors.read(text) for text in self.constraints)
        asked = [one for part in parts for one in part]
        if self.task.run_as is not None:
            asked.append(selectors.Requirement(f"{OWN}run_as.{self.task.run_as}", "=", ("true",)))
        if self.task.network is Network.NONE:
            asked.append(selectors.Requirement(f"{OWN}isolation.sandbox", "=", ("true",)))
        if self.task.secrets:
            asked.append(selectors.Requirement(f"{OWN}{ATTRIBUTE}", "=", ("true",)))
        return tuple(dict.fromkeys(asked))


class JobSpec(JobBody):
    """What the user wants, checked."""

    name: Name
    namespace: Name | None = None
    count: Annotated[int, Field(ge=0, le=MOST_COUNT)] = 1
    priority: Annotated[int, Field(ge=1, le=100)] = 50
    labels: Annotated[
        dict[LabelKey, Annotated[str, Field(max_length=selectors.LONGEST_VALUE)]],
        Field(max_length=64),
    ] = {}
