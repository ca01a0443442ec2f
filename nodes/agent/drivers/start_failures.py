"""Why a command could not be started: what is missing, not executable, or of another machine."""

from __future__ import annotations

import errno
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..walls import NO_WALLS, Walls

HINT_TOO_LONG = "pass long arguments and variables in a file"
_ELSEWHERE = (
    "install it on this node, correct the path, or keep the job by a constraint to nodes that "
    "have it"
)
_FINAL = {
    errno.ENOENT,
    errno.EACCES,
    errno.ENOEXEC,
    errno.E2BIG,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}
#: What the field e_machine of a program says.
_MACHINES = {3: "x86", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}


@dataclass(frozen=True)
class StartFailure:
    """A sentence, its cure, and whether trying again might help."""

    message: str
    hint: str = ""
    retryable: bool = False


def explain(
    number: int,
    reason: str,
    command: tuple[str, ...],
    path: str,
    directory: Path,
    walls: Walls = NO_WALLS,
) -> StartFailure:
    """Why *command* failed to start with the errno *number*, as the file system shows it now.

    *path* is the task's own PATH, *directory* the one that it was to start in, behind *walls*.
    """
    is_of_node = reason != os.strerror(number)
    if is_of_node or not command:  # It is not about the command.
        may_help = is_of_node or number not in _FINAL
        return StartFailure(f"the command could not be started: {reason}", retryable=may_help)
    if not os.access(directory.parent, os.W_OK | os.X_OK):
        message = f"its working directory cannot be made: {directory.parent} is gone or not ours"
        return StartFailure(message, "look at the state directory of the agent", retryable=True)
    program = command[0]
    file = directory / program if "/" in program else _on_path(program, path)
    if file is None:
        message = f"{program} is in no directory of the task's PATH, {path}"
        return StartFailure(message, _ELSEWHERE)
    shown = program if "/" in program else f"{file}, which the task's PATH finds,"
    looks: dict[int, Callable[[Path, str], tuple[str, str] | None]] = {
        errno.ENOENT: _missing,
        errno.ENOTDIR: _missing,
        errno.EACCES: partial(_forbidden, walls=walls),
        errno.ENOEXEC: _unreadable,
    }
    try:
        found = looks[number](file, shown) if number in looks else None
    except OSError:  # We may look at less than we would need to.
        found = None
    if found is not None:
        return StartFailure(*found)
    if number == errno.ENOENT and walls.sandbox and file.exists():
        message = f"{shown} is not shown to tasks: they run in a sandbox"
        return StartFailure(message, "keep it elsewhere, or start the agent with --share for it")
    hint = HINT_TOO_LONG if number == errno.E2BIG else ""
    return StartFailure(f"{shown} could not be started: {reason}", hint, number not in _FINAL)


def _on_path(program: str, path: str) -> Path | None:
    """The file that the supervisor has found: the first that is executable, else the last."""
    found = None
    for candidate in (Path(directory or ".") / program for directory in path.split(":")):
        if os.access(candidate, os.X_OK) and not candidate.is_dir():
            return candidate
        found = candidate if candidate.exists() else found
    return found


def _missing(file: Path, shown: str) -> tuple[str, str] | None:
    if not os.path.lexists(file):
        if not Path(shown).is_absolute():
            cure = "name it by its full path: a task begins in an empty directory of its own"
            return f"{shown} is not in the working directory of the task", cure
        around = next(it for it in file.parents if it.exists())
        if not around.is_dir():
            return f"{shown} does not exist: {around} is no directory", _ELSEWHERE
        gone = "" if around == file.parent else f": there is nothing below {around} of that name"
        return f"{shown} does not exist on this node{gone}", _ELSEWHERE
    if not file.exists():
        return f"{shown} is a link to {file.readlink()}, which does not exist", _ELSEWHERE
    if (interpreter := _interpreter(file)) is not None:
        if interpreter.endswith("\r"):
            cure = "save it with the line ends of Unix, as dos2unix does"
            return f"the lines of {shown} end as on Windows, so its #! line names no program", cure
        message = f"{shown} begins with #!{interpreter}, and that does not exist on this node"
        return message, "install the interpreter, or correct the first line"
    if _machine(file) is not None:
        message = f"{shown} needs a loader or library that does not exist on this node"
        return message, "it was built for another system: build it for this one, or link it static"
    return None


def _forbidden(file: Path, shown: str, walls: Walls) -> tuple[str, str] | None:
    who = "the user that the task runs as" if walls.users else "the user that the agent runs as"

    def may_execute(it: Path) -> bool:
        # Nothing is its own: what everybody may, it may.
        return bool(it.stat().st_mode & 1) if walls.users else os.access(it, os.X_OK)

    for around in reversed(file.parents):
        if around.is_dir() and not may_execute(around):
            return f"{shown} cannot be reached: {who} may not enter {around}", "let it, or move it"
    if file.is_dir():
        return f"{shown} is a directory", "name the program in it"
    if not may_execute(file):
        cure = f"make it executable for {who} (chmod +x), or name the program that reads it first"
        return f"{shown} is not executable", cure
    if os.statvfs(file).f_flag & os.ST_NOEXEC:
        message = f"{shown} lies on a file system from which nothing may run (mounted noexec)"
        return message, "move it to another"
    interpreter = _interpreter(file)
    if interpreter is not None and not may_execute(Path(interpreter)):
        message = f"{shown} begins with #!{interpreter}, and that is not executable"
        return message, "correct the first line"
    return None


def _unreadable(file: Path, shown: str) -> tuple[str, str] | None:
    machine, ours = _machine(file), _machine(Path(sys.executable))
    if machine is not None:
        its = _MACHINES.get(machine, "another kind of machine")
        if machine == ours:
            return f"{shown} is a program, and damaged", "copy it anew"
        message = f"{shown} is a program for {its}, and this node is {platform.machine()}"
        return message, f"build it for this node, or keep the job to others: node.arch = {its}"
    with file.open("rb") as opened:
        head = opened.read(2)
    if not head:
        return f"{shown} is empty", "copy it anew"
    what = "a program for Windows" if head == b"MZ" else "neither a program nor a script"
    cure = "a script must begin with a line like #!/bin/sh" if head != b"MZ" else _ELSEWHERE
    return f"{shown} is {what}", cure


def _interpreter(file: Path) -> str | None:
    """The program that the `#!` line of *file* names; None without such a line."""
    with file.open("rb") as opened:
        line = opened.read(256).partition(b"\n")[0]
    if not line.startswith(b"#!"):
        return None
    # Only blanks end the name: a carriage return belongs to it.
    return os.fsdecode(line[2:].lstrip(b" \t").replace(b"\t", b" ").partition(b" ")[0])


def _machine(file: Path) -> int | None:
    """For which kind of machine the program *file* is; None when it is no program of Unix."""
    with file.open("rb") as opened:
        head = opened.read(20)
    if len(head) < 20 or not head.startswith(b"\x7fELF"):
        return None
    return int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
