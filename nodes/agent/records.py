"""What the agent remembers over its own death, as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import Struct

from ..protocol import secret_references
from ..protocol.messages import Happened, Order, Report, Task
from ..protocol.resources import Resources

#: Reports after which nothing more can happen to an execution.
FINAL = frozenset({Happened.DECLINE, Happened.COMPLETE, Happened.FAIL, Happened.CANCEL})
#: Answers whether an execution was here before and is over: (known, its final report if any).
Recall = Callable[[str], "tuple[bool, Report | None]"]


class Stage(StrEnum):
    """How far an execution has come here."""

    HELD = "held"  # we bid; its resources are reserved
    STARTING = "starting"  # it is, or may have been, handed to its driver
    RUNNING = "running"
    ENDED = "ended"  # over; its final report is not acknowledged yet


class InMemory:
    """The values of the secrets of one task, by variable.

    Nothing writes or prints them: what encodes an entry, as the ledger does, leaves nothing of it.
    """

    __slots__ = ("values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = dict(values)


class Entry(Struct, frozen=True, omit_defaults=True):
    """One execution as this node knows it.  ``final`` is set when it has ended.

    ``secrets`` are there from the order to run it until it runs, and in no entry that was saved.
    """

    execution: str
    stage: Stage
    task: Task | None = None
    resources: Resources = Resources()
    timeout: float | None = None
    grace: float = 10.0
    stopping: bool = False
    handle: str = ""
    driver: str = ""
    final: Report | None = None
    secrets: InMemory | None = None

    @property
    def live(self) -> bool:
        return self.stage is not Stage.ENDED

    @property
    def told_to_run(self) -> bool:
        return self.stage in (Stage.STARTING, Stage.RUNNING)

    @property
    def secret_values(self) -> Mapping[str, str]:
        return {} if self.secrets is None else self.secrets.values

    @property
    def lacks(self) -> tuple[str, str] | None:
        """Why its task cannot begin, and the cure: it names a secret whose value is not here."""
        named = secret_references.names(self.task.env) if self.task else {}
        if named.keys() <= self.secret_values.keys():
            return None
        missing = min(named.keys() - self.secret_values.keys())
        return (
            f"the secret for {missing} is not here: its value was sent once, and the agent was "
            "started anew before the task began",
            "run it again; nothing of the task has run",
        )


def entry_of(order: Order, stage: Stage) -> Entry:
    """What to remember of *order*."""
    return Entry(
        execution=order.execution,
        stage=stage,
        task=order.task,
        resources=order.resources,
        timeout=order.timeout,
        grace=order.grace,
        driver=order.task.driver if order.task else "",
        secrets=InMemory(order.secrets.values) if order.secrets else None,
    )


@dataclass
class Changes:
    """What the ledger does not know yet.  One commit takes all of it.

    ``entries`` maps to None what is forgotten, ``tombstones`` keeps the final report (without
    its tails) of what was forgotten, ``acked`` is the number up to which reports may be deleted.
    Changes that are not urgent may wait for the next commit: losing them costs a repeated
    message, never a repeated start.
    """

    order_rev: int | None = None
    entries: dict[str, Entry | None] = field(default_factory=dict)
    tombstones: dict[str, Report | None] = field(default_factory=dict)
    reports: list[tuple[int, Report]] = field(default_factory=list)
    acked: int = 0
    boot: str | None = None
    urgent: bool = False

    def __bool__(self) -> bool:
        return bool(
            self.order_rev is not None
            or self.boot is not None
            or self.entries
            or self.tombstones
            or self.reports
            or self.acked
        )


@dataclass(frozen=True)
class Saved:
    """What the ledger holds when the agent starts; ``numbered`` is the last number of a report.

    ``boot`` is that of the machine when its consequences were last saved, empty if none ever was.
    """

    order_rev: int = 0
    boot: str = ""
    entries: tuple[Entry, ...] = ()
    reports: tuple[tuple[int, Report], ...] = ()
    numbered: int = 0


@dataclass(frozen=True)
class Machine:
    """Who and what this node is, as its hello says it."""

    instance: str
    run: int
    ledger: str
    boot: str
    capacity: Resources
    attributes: dict[str, str] = field(default_factory=dict)
    drivers: Set[str] = frozenset()
    agent_version: str = ""
