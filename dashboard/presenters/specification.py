"""A job's specification as lines to read, and what one version changed of another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.explain.formatting import size
from orchestrator.spec import FIRST, JobSpec, Needs, Retry, TaskSpec, Timeouts


@dataclass(frozen=True, slots=True)
class SpecLine:
    """``indent`` is spaces; a long *value* may hold several lines."""

    indent: str
    key: str
    value: str
    kind: str


@dataclass(frozen=True, slots=True)
class Change:
    path: str
    before: str
    after: str


def lines(spec: Mapping[str, Any]) -> list[SpecLine]:
    """*spec* in the shape of YAML; what is empty is left out."""
    return list(_mapping(_pruned(spec), ""))


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The paths whose values differ, in the order of their names."""
    old, new = dict(_flat(before, "")), dict(_flat(after, ""))
    return [
        Change(path, old.get(path, ""), new.get(path, ""))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


_PARTS = (JobSpec, TaskSpec, Needs, Retry, Timeouts)
#: The order in which people write a specification; the database keeps none.
_RANK = {
    key: rank
    for rank, key in enumerate(
        dict.fromkeys(
            (*FIRST, *(field for part in _PARTS for field in part.model_fields)),
        )
    )
}


def _pruned(value: Any) -> Any:
    """*value* without what is empty, at any depth."""
    if not isinstance(value, Mapping):
        return value
    kept = {key: _pruned(inner) for key, inner in value.items()}
    return {key: inner for key, inner in kept.items() if inner not in (None, {}, [], "")}


def _mapping(value: Mapping[str, Any], indent: str) -> Iterator[SpecLine]:
    for key in sorted(value, key=lambda key: _RANK.get(key, len(_RANK))):
        inner = value[key]
        if key in {"memory", "disk"} and isinstance(inner, int) and inner:
            yield SpecLine(indent, f"{key}:", size(inner), "number")
        else:
            yield from _entry(f"{key}:", inner, indent)


def _entry(key: str, value: Any, indent: str) -> Iterator[SpecLine]:
    if isinstance(value, Mapping):
        yield SpecLine(indent, key, "", "")
        yield from _mapping(value, indent + "  ")
    elif isinstance(value, list | tuple):
        yield SpecLine(indent, key, "", "")
        for inner in value:
            yield from _entry("-", inner, indent + "  ")
    elif isinstance(value, str) and "\n" in value:
        yield SpecLine(indent, key, "|", "")
        for text in value.strip("\n").split("\n"):
            yield SpecLine(indent + "  ", "", text, "text")
    else:
        kind = "text" if isinstance(value, str) else "number"
        yield SpecLine(indent, key, _said(value), kind)


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for place, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{place}]")
    else:
        yield path, _said(value)


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
