"""The final report of whatever can become of an execution, word for word."""

from __future__ import annotations

import pytest

from nodes.agent import outcomes
from nodes.agent.bidding import Refusal
from nodes.agent.facts import Exited, NotStarted, Vanished
from nodes.agent.records import Entry, Stage
from nodes.protocol.messages import Happened, Report

LONG = "x" * 5000
OUTPUT = {"stdout": "out", "stderr": "err", "stdout_size": 30, "stderr_size": 40}


def ended(status: int, why: str = "", timeout: float | None = None, **amounts: int) -> Report:
    entry = Entry("e", Stage.RUNNING, timeout=timeout)
    return outcomes.ended(entry, Exited("e", status, why, ran=1.5, **OUTPUT, **amounts))


def report(happened: Happened, exit_code: int | None, *words: str) -> Report:
    code, message, hint = (*words, "", "", "")[:3]
    return Report("e", happened, exit_code, code, message, hint, ran=1.5, **OUTPUT)


@pytest.mark.parametrize(
    ("say", "right"),
    [
        (lambda: ended(0), report(Happened.COMPLETE, 0)),
        (lambda: ended(3), report(Happened.FAIL, 3, "exit-code", "the task exited with code 3")),
        (
            lambda: ended(-11),
            report(Happened.FAIL, None, "signal", "the task was killed by SIGSEGV (11)"),
        ),
        (
            lambda: ended(-99),
            report(Happened.FAIL, None, "signal", "the task was killed by signal (99)"),
        ),
        (
            lambda: ended(-9),
            report(
                Happened.FAIL,
                None,
                "signal",
                "the task was killed by SIGKILL (9)",
                "nobody asked for it: perhaps the machine ran out of memory",
            ),
        ),
        (
            lambda: ended(0, "stopped"),
            report(
                Happened.CANCEL,
                0,
                "stopped",
                "stopped on request; the task exited with code 0",
            ),
        ),
        (
            lambda: ended(-9, "timeout", timeout=2.5),
            report(
                Happened.FAIL,
                None,
                "timeout",
                "ran longer than the 2.5 s it was allowed; the task was killed by SIGKILL (9)",
                "raise timeouts.execution, or let the task do less",
            ),
        ),
        (
            lambda: ended(1, "timeout"),
            report(
                Happened.FAIL,
                1,
                "timeout",
                "ran longer than the time it was allowed; the task exited with code 1",
                "raise timeouts.execution, or let the task do less",
            ),
        ),
        (
            lambda: ended(-9, "memory", limit=64 << 20, used=(64 << 20) - 4096),
            report(
                Happened.FAIL,
                None,
                "out-of-memory",
                "took 64 MiB of memory and may take 64 MiB; the task was killed by SIGKILL (9)",
                "raise task.resources.memory, or let the task take less",
            ),
        ),
        (
            lambda: ended(1, "disk", limit=1000, used=3 << 29),
            report(
                Happened.FAIL,
                1,
                "out-of-disk",
                "took 1.5 GiB of disk and may take 1000 bytes; the task exited with code 1",
                "raise task.resources.disk, or let the task write less into its directory",
            ),
        ),
        (
            lambda: ended(-15, "disk", limit=1 << 30, used=1 << 20),
            report(
                Happened.FAIL,
                None,
                "out-of-disk",
                "its directory could not be counted, each time something in it had moved or could "
                "not be opened, while its disk lost more than was left of the 1 GiB that it may "
                "take; the task was killed by SIGTERM (15)",
                "raise task.resources.disk, or let the task write less into its directory",
            ),
        ),
        (
            lambda: outcomes.declined(
                "e", Refusal("no-driver", LONG, "install it", retryable=False)
            ),
            Report(
                "e",
                Happened.DECLINE,
                code="no-driver",
                message=LONG[:4096],
                hint="install it",
                retryable=False,
            ),
        ),
        (
            lambda: outcomes.not_started(NotStarted("e", LONG, LONG, retryable=False)),
            Report(
                "e",
                Happened.FAIL,
                code="not-started",
                message=LONG[:4096],
                hint=LONG[:4096],
                retryable=False,
            ),
        ),
        (
            lambda: outcomes.unknown(Vanished("e", LONG)),
            Report("e", Happened.FAIL, code="unknown-outcome", message=LONG[:4096]),
        ),
        (
            lambda: outcomes.cancelled("e", "it had not begun"),
            Report("e", Happened.CANCEL, code="stopped", message="it had not begun"),
        ),
        (
            lambda: outcomes.without_tails(ended(3)),
            Report(
                "e",
                Happened.FAIL,
                3,
                "exit-code",
                "the task exited with code 3",
                ran=1.5,
                stdout_size=30,
                stderr_size=40,
            ),
        ),
    ],
)
def test_an_end_is_reported_word_for_word(say, right):
    assert say() == right
