"""What is printed: tables for people, and for programs the API's own objects."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import StrEnum
from typing import Any, NoReturn, TextIO

from . import sanitise


class Format(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table; *wide* ones are shown by `-o wide` alone."""

    title: str
    show: Callable[[Row], object]
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """How this call prints."""

    format: Format = Format.TABLE
    headers: bool = True
    utc: bool | None = None
    """Exact times in UTC, or local ones; None when nobody asked for them."""

    def table(self, rows: Sequence[Row], columns: Sequence[Column], name: str = "name") -> None:
        """*rows* in the chosen format; the format `name` prints their *name* alone."""
        if self._objects(list(rows)):
            return
        if self.format is Format.NAME:
            for row in rows:
                say(sanitise.line(row[name]))
            return
        shown = [it for it in columns if self.format is Format.WIDE or not it.wide]
        cells = [[self._line(column.show(row)) for column in shown] for row in rows]
        if self.headers:
            cells.insert(0, [column.title for column in shown])
        if not cells:
            return
        widths = [max(len(texts[i]) for texts in cells) for i in range(len(shown))]
        for number, texts in enumerate(cells):
            padded = "  ".join(it.ljust(width) for it, width in zip(texts, widths, strict=True))
            is_header = self.headers and number == 0
            say(_dim(padded.rstrip()) if is_header else _coloured(padded.rstrip()))

    def one(self, row: Row, lines: Sequence[tuple[str, object]], name: str = "name") -> None:
        """One object: all of it for programs, *lines* of it for people."""
        if self._objects(row):
            return
        if self.format is Format.NAME:
            say(sanitise.line(row[name]))
            return
        width = max(len(title) for title, _ in lines)
        for title, value in lines:
            text = self._line(value)
            if text:
                say(_dim(title.ljust(width)) + "  " + _coloured(text))

    def done(self, row: Row, sentence: str, name: str = "name") -> None:
        """What came of a change: a sentence for people, the object for programs."""
        if self._objects(row):
            return
        say(sanitise.line(row[name] if self.format is Format.NAME else sentence))

    def submitted(self, rows: Sequence[Row]) -> None:
        """What came of the jobs of a file: an object for one, a list for several."""
        if self.format is Format.NAME:
            self.table(rows, ())
        else:
            self._objects(rows[0] if len(rows) == 1 else list(rows))

    @property
    def is_for_people(self) -> bool:
        return self.format in (Format.TABLE, Format.WIDE)

    def _line(self, value: object) -> str:
        if not isinstance(value, Instant):
            return sanitise.line("" if value is None else value)
        at_a_glance = self.format is Format.TABLE and self.utc is None and sys.stdout.isatty()
        return sanitise.line(value.at_a_glance() if at_a_glance else value.exactly(self.utc))

    def _objects(self, value: Any) -> bool:
        if self.format is Format.JSON:
            text = json.dumps(value, indent=2, ensure_ascii=not _is_utf8())
            say(sanitise.escaped(text) if sys.stdout.isatty() else text)
        elif self.format is Format.YAML:
            import yaml

            plain = json.loads(json.dumps(value))  # An answer's objects are more than dictionaries.
            text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=_is_utf8())
            if sys.stdout.isatty() and sanitise.is_hidden_in(text):
                text = yaml.safe_dump(plain, sort_keys=False)
            say(text.rstrip("\n"))
        else:
            return False
        return True


def say(text: str, end: str = "\n") -> None:
    """Print; who closed the other end has seen enough."""
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except BrokenPipeError:
        leave_quietly()
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write((text + end).encode(encoding, "replace").decode(encoding))


def leave_quietly() -> NoReturn:
    """End well although nobody reads any more; Python would complain while closing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    raise SystemExit(0)


def tell(text: str) -> None:
    """Say something about the work itself, apart from its results."""
    print(text, file=sys.stderr, flush=True)


def tell_places(found: Sequence[Mapping[str, str]]) -> None:
    """Say each thing that was found in a file: where, what, and the cure."""
    for one in found:
        where = [f"line {one['line']}"] if one.get("line") else []
        where += [sanitise.line(one["path"])] if one.get("path") else []
        place = ", ".join(where)
        message = sanitise.line(one.get("message", ""))
        tell(f"  {place}: {message}" if place else f"  {message}")
        if one.get("hint"):
            tell(f"      {sanitise.line(one['hint'])}")


# --- words -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Instant:
    """An instant as the API says it: how long ago for people who look, otherwise exact."""

    text: str | None
    is_clock: bool = False
    """At a glance it is a time of day in UTC: one of several that are compared."""

    def at_a_glance(self) -> str:
        if not self.text:
            return ""
        if self.is_clock:
            return f"{self.text[11:23]}Z"
        now = datetime.now(timezone.utc)  # noqa: TID251, UP017 - an edge, and 3.11 reads both
        return ago((now - datetime.fromisoformat(self.text)).total_seconds())

    def exactly(self, utc: bool | None = None) -> str:
        if not self.text or utc is not False:
            return self.text or ""
        return datetime.fromisoformat(self.text).astimezone().isoformat()


def ago(seconds: float) -> str:
    """``40 s ago``, ``12 min ago``, ``3 h ago``, ``2 d ago``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"


def labels(found: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(found.items()))


# --- colour ----------------------------------------------------------------------------------

_COLOURS = {
    "completed": "32",
    "connected": "32",
    "approved": "32",
    "running": "34",
    "failed": "31",
    "lost": "31",
    "rejected": "31",
    "queued": "33",
    "pending": "33",
    "disconnected": "33",
}


def is_colourful(to: TextIO | None = None) -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return (to or sys.stdout).isatty() and not plain


def red(text: str) -> str:
    """*text* as of something that went wrong, also over several lines."""
    return "\n".join(f"\x1b[31m{it}\x1b[0m" if it else "" for it in text.split("\n"))


def _dim(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m" if is_colourful() else text


def _coloured(text: str) -> str:
    """Colour the first word of a state; the words say it too."""
    if not is_colourful():
        return text
    for word, colour in _COLOURS.items():
        before, found, after = text.partition(f" {word} ")
        if found:
            return f"{before} \x1b[{colour}m{word}\x1b[0m {after}"
    return text


def _is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
