"""`muster job run --move-secrets`: what looks like one goes from a job file to the server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import jobfile, sanitise
from .client import Client, segment
from .failures import Code, Failure
from .jobfile import JobFile
from .output import tell

_ENV = "task.env."


@dataclass(frozen=True, slots=True)
class _Move:
    number: int
    variable: str
    secret: str
    value: str
    line: int | None

    @property
    def reference(self) -> str:
        return f"secret://{self.secret}"


def move(api: Client, file: JobFile, name: str, answers: Sequence[Mapping[str, Any]]) -> JobFile:
    """Keep as secrets what the server's *answers* warn of; the jobs, which name them now.

    The file *name* is written anew where that is a matter of its lines alone.
    """
    jobs = [json.loads(text) for text in file.jobs]
    moves = list(_moves(file, jobs, answers))
    for (namespace, _), first in _kinds(moves, jobs).items():
        _keep(api, first, namespace)
    for it in moves:
        jobs[it.number]["task"]["env"][it.variable] = it.reference
    moved = replace(file, jobs=tuple(json.dumps(job).encode() for job in jobs))
    left = [it for it in moves if not _rewritten(name, it)]
    for it in left:
        where = f"In line {it.line} of" if it.line else "In"
        shown = sanitise.line(file.name)
        tell(f"muster: {where} {shown}, write {it.reference} for {it.variable} yourself.")
    return moved


def _moves(
    file: JobFile, jobs: Sequence[dict[str, Any]], answers: Sequence[Mapping[str, Any]]
) -> list[_Move]:
    found = []
    for number, answer in enumerate(answers):
        for one in file.placed(answer["warnings"], number):
            path = one["path"].removeprefix(f"jobs.{number}.")
            if one.get("secret") and path.startswith(_ENV):
                variable = path.removeprefix(_ENV)
                value = jobs[number]["task"]["env"][variable]
                line = int(one["line"]) if one.get("line") else None
                found.append(_Move(number, variable, one["secret"], value, line))
    return found


def _kinds(
    moves: Sequence[_Move], jobs: Sequence[dict[str, Any]]
) -> dict[tuple[str | None, str], _Move]:
    """The first of *moves* for each secret of a namespace; raises Failure for one of two values."""
    found: dict[tuple[str | None, str], _Move] = {}
    for it in moves:
        first = found.setdefault((jobs[it.number].get("namespace"), it.secret), it)
        if first.value != it.value:
            raise Failure(
                f"{first.variable} and {it.variable} would both be the secret {it.secret}, and "
                "have different values.",
                code=Code.CONFLICT,
                hint="Keep one of them under another name with `muster secret put`, and name that.",
            )
    return found


def _keep(api: Client, it: _Move, namespace: str | None) -> None:
    path = f"secrets/{segment(it.secret)}"
    try:
        api.put(path, {"value": it.value}, namespace=namespace, create_only=True)
    except Failure as failure:
        if failure.code is not Code.CONFLICT:
            raise
        raise Failure(
            f"{it.variable} cannot be moved: {failure.sentence}",
            code=Code.CONFLICT,
            hint=f"If that is what you mean, write {it.variable}: {it.reference}; or keep it under "
            f"another name with `muster secret put` and name that.",
        ) from None
    tell(f"{it.variable} is kept as the secret {it.secret}.")


def _rewritten(name: str, it: _Move) -> bool:
    """Whether the file says the reference now, and everything else as before."""
    path = Path(name)
    if name == "-" or it.line is None or not path.is_file():
        return False
    before = path.read_bytes().decode()
    lines = before.split("\n")
    if lines[it.line - 1].count(it.value) != 1:
        return False
    lines[it.line - 1] = lines[it.line - 1].replace(it.value, it.reference)
    expected = [json.loads(text) for text in jobfile.read(name).jobs]
    expected[it.number]["task"]["env"][it.variable] = it.reference
    new = path.with_name(f"{path.name}.moving-secrets")
    new.touch(0o600)
    new.write_bytes("\n".join(lines).encode())
    new.chmod(path.stat().st_mode & 0o7777)
    try:
        if [json.loads(text) for text in jobfile.read(str(new)).jobs] != expected:
            return False
        new.replace(path)
    except Failure:
        return False
    finally:
        new.unlink(missing_ok=True)
    return True
