"""What a driver can tell about a task."""

from __future__ import annotations

from msgspec import Struct


class Started(Struct, frozen=True):
    """The task runs.  *handle* is whatever the driver needs to find it again after a restart."""

    execution: str
    handle: str = ""


class Exited(Struct, frozen=True):
    """The task is over and nothing of it is left.

    ``status`` is the exit code, or minus the number of the signal that ended it.  ``why`` says
    who ended it: nobody (``""``), the ``timeout``, a request (``stopped``), or that it took more
    ``memory`` or ``disk`` than it may; then *limit* and *used* are the bytes.
    """

    execution: str
    status: int
    why: str = ""
    ran: float | None = None
    stdout: str = ""
    stderr: str = ""
    stdout_size: int = 0
    stderr_size: int = 0
    limit: int = 0
    used: int = 0


class NotStarted(Struct, frozen=True):
    """The task could not be started at all, and why."""

    execution: str
    message: str
    hint: str = ""
    retryable: bool = True


class NeverStarted(Struct, frozen=True):
    """The driver vouches that nothing of this task has ever run: it may be started now."""

    execution: str


class Vanished(Struct, frozen=True):
    """The task was started, or may have been; nobody can say how it ended."""

    execution: str
    message: str = "the outcome of the task is unknown"


Fact = Started | Exited | NotStarted | NeverStarted | Vanished
