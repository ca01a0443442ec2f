"""Whether this node takes an execution, and why not.  Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Set
from dataclasses import dataclass

from ..protocol.messages import Order
from ..protocol.resources import DIMENSIONS, Resources

#: An execution's id names files here, so it must be a plain file name.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")

_UNITS = {"cpu": "millicores", "memory": "bytes", "disk": "bytes", "gpu": "devices"}


@dataclass(frozen=True)
class Offer:
    """What this node has, what of it is taken, and why it takes no new work if it does not."""

    capacity: Resources
    used: Resources
    drivers: Set[str]
    degraded: str = ""


@dataclass(frozen=True)
class Refusal:
    """Why not: a word for programs, a sentence with numbers and a hint for people."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = True


def refusal(order: Order, offer: Offer) -> Refusal | None:
    """Why this node does not take *order*, or None if it does."""
    for rule in RULES:
        if found := rule(order, offer):
            return found
    return None


def is_implausible(order: Order, _: Offer) -> Refusal | None:
    if (what := _nonsense(order)) is None:
        return None
    return Refusal("not-started", f"the order makes no sense: {what}", retryable=False)


def is_degraded(_: Order, offer: Offer) -> Refusal | None:
    if not offer.degraded:
        return None
    return Refusal("degraded", f"this node takes no new work: {offer.degraded}")


def has_no_driver(order: Order, offer: Offer) -> Refusal | None:
    if order.task is None or order.task.driver in offer.drivers:
        return None
    have = ", ".join(sorted(offer.drivers)) or "none"
    return Refusal("no-driver", f"there is no driver {order.task.driver!r} here, only {have}")


def never_fits(order: Order, offer: Offer) -> Refusal | None:
    if not (short := order.resources.shortfalls(offer.capacity)):
        return None
    return Refusal(
        "no-capacity",
        f"needs {_amounts(short, order.resources)}, the whole node has "
        f"{_amounts(short, offer.capacity)}",
    )


def does_not_fit_now(order: Order, offer: Offer) -> Refusal | None:
    free = offer.capacity - offer.used
    if not (short := order.resources.shortfalls(free)):
        return None
    return Refusal(
        "no-capacity",
        f"needs {_amounts(short, order.resources)}, {_amounts(short, free)} of "
        f"{_amounts(short, offer.capacity)} free",
    )


RULES: tuple[Callable[[Order, Offer], Refusal | None], ...] = (
    is_implausible,
    is_degraded,
    has_no_driver,
    never_fits,
    does_not_fit_now,
)


def _nonsense(order: Order) -> str | None:
    task = order.task
    if not _PLAIN.match(order.execution):
        return "its execution id is not a plain name"
    if task is None:
        return "it has no task"
    if not task.command or not task.command[0]:
        return "its command is empty"
    if any("\0" in word for word in task.command):
        return "its command has a NUL character in it"
    if any("\0" in k or "=" in k or not k or "\0" in v for k, v in task.env.items()):
        return "a variable of its environment has no usable name or a NUL character in it"
    if any(amount < 0 for amount in order.resources.astuple()):
        return "it needs less than nothing"
    if (order.timeout is not None and order.timeout <= 0) or order.grace < 0:
        return "its timeout or grace is not a time"
    return None


def _amounts(names: dict[str, int], of: Resources) -> str:
    amounts = dict(zip(DIMENSIONS, of.astuple(), strict=True))
    return " and ".join(f"{name} {amounts[name]} {_UNITS[name]}" for name in names)
