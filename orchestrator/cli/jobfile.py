"""Job files: YAML read strictly, so that nothing in it means something else than it seems to.

The text is read as events and never as objects: anchors, tags, repeated keys and words that
YAML takes for something else (`no`, `1:30`, `017`, dates) are mistakes, each with its line.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.explain.formatting import counted

from .failures import Code, Failure

LARGEST = 1024 * 1024
DEEPEST = 32
MOST_MISTAKES = 100

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_OCTAL = re.compile(r"[+-]?0o[0-7_]+", re.ASCII)
_NULLS = {"", "~", "null"}


@dataclass(frozen=True, slots=True)
class JobFile:
    """The JSON of the jobs of a file, and on which line of it each path stands.

    When there are several, a path begins with that of its job, as in ``jobs.1.name``.
    """

    name: str
    jobs: tuple[bytes, ...]
    lines: dict[str, int] = field(default_factory=dict)

    @property
    def text(self) -> bytes:
        """The first job, which in most files is the only one."""
        return self.jobs[0]

    def batch(self, *, rerun: bool) -> bytes:
        """The jobs as they are submitted together."""
        flag = b"true" if rerun else b"false"
        return b'{"jobs": [%s], "rerun": %s}' % (b", ".join(self.jobs), flag)

    def placed(self, errors: Iterable[Mapping[str, str]], number: int = 0) -> list[dict[str, str]]:
        """The *errors* of the batch, or of the job of that *number*, each with its line."""
        found = []
        for error in errors:
            path, head = error.get("path", ""), _prefix(number)
            if len(self.jobs) == 1:
                path = re.sub(rf"{re.escape(head)}(\.|$)", "", path, count=1)
            elif path != "jobs" and not path.startswith("jobs."):
                path = _under(head, path) if path else head
            found.append({**error, "path": path, "line": str(self.line(path) or "")})
        return found

    def line(self, path: str) -> int | None:
        """The line of *path*, or of the nearest thing around it."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path.rpartition(".")[0]
        return None


class Mistaken(Failure):
    """A file with mistakes.  *rest* is the jobs apart from them, when there is any sense in it."""

    def __init__(
        self, name: str, mistakes: list[dict[str, str]], rest: JobFile | None = None
    ) -> None:
        number = counted(len(mistakes), "mistake")
        super().__init__(
            f"{name} has {number}; nothing was stored.", code=Code.USAGE, errors=mistakes
        )
        self.name, self.rest = name, rest


def read(name: str) -> JobFile:
    """The job file *name*, `-` for standard input; raises Mistaken with every mistake in it."""
    data = _bytes(name)
    shown = "standard input" if name == "-" else name
    if name.endswith(".json") or _is_json(data):
        return JobFile(shown, (data,))  # The server reads it as strictly, and names the place.
    return _Reader(shown, _decoded(shown, data)).read()


def _bytes(name: str) -> bytes:
    try:
        if name == "-":
            if sys.stdin is None:
                raise _unreadable("standard input", "it is closed")
            data = sys.stdin.buffer.read(LARGEST + 1)
        else:
            mode = os.stat(name).st_mode  # noqa: PTH116 - the name may be anything
            # A pipe is what the shell makes of `<(command)`; a device may have no end.
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                raise _unreadable(name, "it is not a file; use - to read standard input")
            with open(name, "rb") as file:  # noqa: PTH123
                data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise _unreadable(name, getattr(error, "strerror", None) or str(error)) from None
    if len(data) > LARGEST:
        raise _unreadable(name, f"it is larger than {LARGEST} bytes")
    return data


def _unreadable(name: str, why: str) -> Failure:
    return Failure(f"{name} cannot be read: {why}.", code=Code.USAGE)


def _is_json(data: bytes) -> bool:
    if not data.lstrip().startswith(b"{"):
        return False
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _decoded(name: str, data: bytes) -> str:
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise _unreadable(name, "it begins with a byte order mark; save it as plain UTF-8")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _unreadable(name, f"it is not UTF-8 at byte {error.start}") from None


def _no_job(root: Any) -> tuple[str, str]:
    """What is wrong with a document that is no job, and what to write."""
    if root is None:
        return "is empty; it must be an object", "Write name: … and task: …."
    if isinstance(root, list):
        return (
            "is a list; it must be an object",
            "Write the jobs one after the other, with --- between them.",
        )
    return (
        "is plain text; it must be an object",
        "A job file is YAML or JSON: write name: … and task: ….",
    )


class _TooWrong(Exception):
    """What follows cannot be made sense of."""


@dataclass(slots=True)
class _Open:
    """A mapping or list that is being read; *key* waits for its value."""

    value: dict[str, Any] | list[Any]
    path: str
    key: str | None = None


class _Reader:
    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self.lines: dict[str, int] = {}
        self.mistakes: list[dict[str, str]] = []
        self.stack: list[_Open] = []
        self.jobs: list[Any] = []
        self.root: Any = None
        self.is_whole = False

    def read(self) -> JobFile:
        import yaml

        try:
            for event in self._events():
                self._take(event)
            self.is_whole = all(isinstance(job, dict) for job in self.jobs)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            if "'\\t'" in str(error.problem) or self._begins_with_tab(mark):
                self._mistake(mark, "", "is not YAML: it is indented with a tab", "Use spaces.")
            else:
                self._mistake(mark, "", f"is not YAML: {error.problem or error.context}", "")
        except yaml.reader.ReaderError as error:
            line = self.text.count("\n", 0, error.position) + 1
            self.mistakes.append(
                _mistake(line, "", f"contains the character U+{error.character:04X}", "Remove it.")
            )
        except _TooWrong:
            pass
        if not self.mistakes:
            self._insist_on_objects()
            self._insist_on_different_names()
        self._name_the_only_job_by_nothing()
        file = JobFile(self.name, tuple(json.dumps(job).encode() for job in self.jobs), self.lines)
        if self.mistakes:
            raise Mistaken(self.name, self.mistakes, file if self.is_whole else None)
        return file

    def _begins_with_tab(self, mark: Any) -> bool:
        lines = self.text.splitlines()
        begin = lines[mark.line][: mark.column + 1] if mark and mark.line < len(lines) else ""
        return "\t" in begin and not begin.strip()

    def _insist_on_objects(self) -> None:
        for number, job in enumerate(self.jobs or [None]):
            if not isinstance(job, dict):
                line, path = self.lines.get(_prefix(number), 1), _prefix(number)
                self.mistakes.append(_mistake(line, path, *_no_job(job)))

    def _insist_on_different_names(self) -> None:
        lines: dict[str, int] = {}
        for number, job in enumerate(self.jobs):
            name = job.get("name") if isinstance(job, dict) else None
            if not isinstance(name, str):
                continue
            path = f"{_prefix(number)}.name"
            line = self.lines[path]
            if name in lines:
                message = f"{name[:63]!r} is the name of the job in line {lines[name]}, too"
                self.mistakes.append(_mistake(line, path, message, "Give each job its own."))
            lines.setdefault(name, line)

    def _name_the_only_job_by_nothing(self) -> None:
        if len(self.jobs) > 1:
            return
        prefix = re.compile(re.escape(_prefix(0)) + r"(\.|$)")
        self.lines = {prefix.sub("", path, 1): line for path, line in self.lines.items()}
        for one in self.mistakes:
            one["path"] = prefix.sub("", one["path"], 1)

    def _events(self) -> Iterator[Any]:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        yield from yaml.parse(self.text, Loader=loader)

    def _take(self, event: Any) -> None:
        import yaml

        self._refuse_cleverness(event)
        match event:
            case yaml.DocumentStartEvent():
                self.root = None
                self.lines.pop(_prefix(len(self.jobs)), None)  # Of a document without a word.
            case yaml.DocumentEndEvent():
                self.jobs += [self.root] if self.root is not None else []
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent():
                self._open(event, {})
            case yaml.SequenceStartEvent():
                self._open(event, [])
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self.stack.pop()

    def _refuse_cleverness(self, event: Any) -> None:
        import yaml

        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            self._mistake(
                event.start_mark, self._path(), "anchors are not supported", "Write it out."
            )
            raise _TooWrong
        if getattr(event, "tag", None) is not None:
            self._mistake(event.start_mark, self._path(), "tags are not supported", "Leave it out.")
            raise _TooWrong

    def _open(self, event: Any, made: dict[str, Any] | list[Any]) -> None:
        if self._expects_key():
            self._mistake(event.start_mark, self._path(), "a key must be text", "Put it in quotes.")
            raise _TooWrong
        if len(self.stack) >= DEEPEST:
            self._mistake(
                event.start_mark, "", f"is nested deeper than {DEEPEST} levels", "Flatten it."
            )
            raise _TooWrong
        path = self._store(made, event.start_mark)
        self.stack.append(_Open(made, path))

    def _scalar(self, event: Any) -> None:
        if self._expects_key():
            self._key(event)
            return
        value = event.value
        if not event.style:
            value = self._plain(event)
        self._store(value, event.start_mark)

    def _key(self, event: Any) -> None:
        # Every key of a job is text, so a bare `on` or `1` can mean nothing else.
        top, key = self.stack[-1], event.value
        if key == "<<" and not event.style:
            self._mistake(event.start_mark, top.path, "merging is not supported", "Write it out.")
        elif key in top.value:
            self._mistake(
                event.start_mark, _under(top.path, key), "occurs twice", "Keep one of them."
            )
        top.key = key
        self.lines.setdefault(_under(top.path, key), event.start_mark.line + 1)

    def _plain(self, event: Any) -> Any:
        text = event.value
        if text in _NULLS:
            return None
        if text in ("true", "false"):
            return text == "true"
        if _INTEGER.fullmatch(text) and len(text) <= 20:
            return int(text)
        if _NUMBER.fullmatch(text) and math.isfinite(float(text)) and not text.isdecimal():
            return float(text)
        if self._is_ambiguous(text):
            self._mistake(
                event.start_mark,
                self._path(),
                f"{text[:40]!r} means something else in YAML than it seems to",
                f'If it is text, write "{text[:40]}"; a number has plain decimal digits, '
                "and yes or no are true and false.",
            )
        return text

    def _is_ambiguous(self, text: str) -> bool:
        import yaml

        if len(text) > 100:
            return bool(_NUMBER.fullmatch(text))
        if _OCTAL.fullmatch(text) or text.lower() in {"y", "n"}:
            return True
        if _NUMBER.fullmatch(text):  # And not one that there is room for.
            return True
        resolvers = yaml.SafeLoader.yaml_implicit_resolvers.get(text[0], [])
        return any(pattern.match(text) for _, pattern in resolvers)

    def _expects_key(self) -> bool:
        return (
            bool(self.stack)
            and isinstance(self.stack[-1].value, dict)
            and (self.stack[-1].key is None)
        )

    def _store(self, value: Any, mark: Any) -> str:
        """Put *value* where it belongs, and give its path."""
        path = self._path()
        self.lines.setdefault(path, mark.line + 1)
        if not self.stack:
            self.root = value
            return path
        top = self.stack[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is not None:
            top.value[top.key] = value
            top.key = None
        return path

    def _path(self) -> str:
        """The path of what comes next."""
        if not self.stack:
            return _prefix(len(self.jobs))
        top = self.stack[-1]
        if isinstance(top.value, list):
            return _under(top.path, str(len(top.value)))
        return top.path if top.key is None else _under(top.path, top.key)

    def _mistake(self, mark: Any, path: str, message: str, hint: str) -> None:
        self.mistakes.append(_mistake(mark.line + 1 if mark else 1, path, message, hint))
        if len(self.mistakes) >= MOST_MISTAKES:
            raise _TooWrong


def _mistake(line: int, path: str, message: str, hint: str) -> dict[str, str]:
    return {"line": str(line), "path": path, "message": message, "hint": hint}


def _prefix(number: int) -> str:
    return f"jobs.{number}"


def _under(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
