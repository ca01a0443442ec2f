"""How an execution ended, in the words of a final report.  Pure."""

from __future__ import annotations

import signal

from msgspec.structs import replace

from ..protocol.messages import UNKNOWN_OUTCOME, Happened, Report
from .bidding import Refusal
from .facts import Exited, NotStarted, Vanished
from .records import Entry

#: What a task may take too much of: the code, the word for it, the cure.
_SHORT = {
    "memory": (
        "out-of-memory",
        "memory",
        "raise task.resources.memory, or let the task take less",
    ),
    "disk": (
        "out-of-disk",
        "disk",
        "raise task.resources.disk, or let the task write less into its directory",
    ),
}


def declined(execution: str, why: Refusal) -> Report:
    return Report(
        execution,
        Happened.DECLINE,
        code=why.code,
        message=why.message[:4096],
        hint=why.hint,
        retryable=why.retryable,
    )


def cancelled(execution: str, message: str) -> Report:
    return Report(execution, Happened.CANCEL, code="stopped", message=message)


def not_started(fact: NotStarted) -> Report:
    return Report(
        fact.execution,
        Happened.FAIL,
        code="not-started",
        message=fact.message[:4096],
        hint=fact.hint[:4096],
        retryable=fact.retryable,
    )


def unknown(fact: Vanished) -> Report:
    return Report(fact.execution, Happened.FAIL, code=UNKNOWN_OUTCOME, message=fact.message[:4096])


def ended(entry: Entry, fact: Exited) -> Report:
    """The final report of a task that ran."""
    happened, code, message, hint = _verdict(entry, fact)
    return Report(
        fact.execution,
        happened,
        exit_code=fact.status if fact.status >= 0 else None,
        code=code,
        message=message,
        hint=hint,
        ran=fact.ran,
        stdout=fact.stdout,
        stderr=fact.stderr,
        stdout_size=fact.stdout_size,
        stderr_size=fact.stderr_size,
    )


def without_tails(report: Report) -> Report:
    """*report* as it is remembered for long: the outcome, not what the task printed."""
    return replace(report, stdout="", stderr="")


def _verdict(entry: Entry, fact: Exited) -> tuple[Happened, str, str, str]:
    how = _how(fact.status)
    if fact.why == "stopped":
        return Happened.CANCEL, "stopped", f"stopped on request; the task {how}", ""
    if fact.why == "timeout":
        limit = f"{entry.timeout:.10g} s" if entry.timeout is not None else "time"
        return (
            Happened.FAIL,
            "timeout",
            f"ran longer than the {limit} it was allowed; the task {how}",
            "raise timeouts.execution, or let the task do less",
        )
    if fact.why in _SHORT:
        code, what, cure = _SHORT[fact.why]
        took = f"took {_amount(fact.used)} of {what} and may take {_amount(fact.limit)}"
        if fact.why == "disk" and fact.used <= fact.limit:  # See ``disk_use``.
            took = (
                "its directory could not be counted, each time something in it had moved or could "
                "not be opened, while its disk lost more than was left of the "
                f"{_amount(fact.limit)} that it may take"
            )
        return Happened.FAIL, code, f"{took}; the task {how}", cure
    if fact.status < 0:
        hint = ""
        if fact.status == -signal.SIGKILL:
            hint = "nobody asked for it: perhaps the machine ran out of memory"
        return Happened.FAIL, "signal", f"the task {how}", hint
    if fact.status:
        return Happened.FAIL, "exit-code", f"the task {how}", ""
    return Happened.COMPLETE, "", "", ""


def _amount(size: int) -> str:
    """*size* bytes as a job file would say them, or nearly."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} bytes"


def _how(status: int) -> str:
    if status >= 0:
        return f"exited with code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "signal"
    return f"was killed by {name} ({-status})"
