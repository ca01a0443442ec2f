"""How the command line fails: a sentence, a cure, and an exit code that scripts may rely on."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Code(IntEnum):
    """The exit codes, as the manual promises them.  4 is kept for `job plan`."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_REACHED = 3
    FAILED = 5
    NOT_FOUND = 6
    CONFLICT = 7
    DENIED = 8
    TIMEOUT = 9
    INTERRUPTED = 130


class Failure(Exception):
    """The command ends here.  *errors* are mistakes with path, message and hint."""

    def __init__(
        self,
        sentence: str,
        *,
        code: Code = Code.ERROR,
        hint: str = "",
        errors: Sequence[dict[str, str]] = (),
    ) -> None:
        super().__init__(sentence)
        self.sentence, self.code, self.hint, self.errors = sentence, code, hint, errors


class Unreachable(Failure):
    """The server did not answer, or said that something went wrong there; it may answer later."""
