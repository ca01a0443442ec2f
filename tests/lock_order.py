"""Watches every statement of the tests for the one order of locks; see ``nodes/locks.py``.

A statement that locks a table while its transaction holds one that comes later fails, unless that
table was locked before: then it is taken for the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from nodes.locks import TABLES, Lock
from orchestrator.broker.blocked import LOCK

_LOCK_OF = {table: lock for lock, (table, _key) in TABLES.items()}
_ANY_TABLE = "|".join(_LOCK_OF)
_CHANGED = re.compile(rf'\b(?:UPDATE|DELETE FROM)\s+(?:ONLY\s+)?"?({_ANY_TABLE})\b')
_SELECTED = re.compile(rf'\bFROM\s+"?({_ANY_TABLE})\b[^;]*?\bFOR (?:NO KEY )?UPDATE', re.DOTALL)
_SAVEPOINT = re.compile(r'^(SAVEPOINT|ROLLBACK TO SAVEPOINT|RELEASE SAVEPOINT) "?(\w+)')


class LockOrderBroken(AssertionError):
    """A statement went back in the order of locks."""


class Watch:
    """What the current transaction of one connection has locked."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._transaction: object | None = None
        self._held: set[Lock] = set()
        self._savepoints: dict[str, set[Lock]] = {}

    def __call__(
        self, execute: Callable[..., Any], sql: Any, parameters: Any, many: bool, context: Any
    ) -> Any:
        text = sql if isinstance(sql, str) else str(sql)
        self._begin()
        self._follow_savepoints(text)
        waits = "SKIP LOCKED" not in text
        for lock in sorted(locked_by(text, parameters)):
            later = sorted(held.name for held in self._held if held > lock)
            if waits and later and lock not in self._held:
                raise LockOrderBroken(f"{lock.name} after {', '.join(later)}: {text[:500]}")
            if self._transaction is not None:
                self._held.add(lock)
        return execute(sql, parameters, many, context)

    def _begin(self) -> None:
        """Forget everything when this is another transaction than before."""
        ours = [it for it in self._connection.atomic_blocks if not it._from_testcase]
        outermost = ours[0] if ours else None
        if outermost is not self._transaction:
            self._transaction = outermost
            self._held = set()
            self._savepoints = {}

    def _follow_savepoints(self, text: str) -> None:
        found = _SAVEPOINT.match(text)
        if found is None:
            return
        what, name = found.groups()
        if what == "SAVEPOINT":
            self._savepoints[name] = set(self._held)
        elif what == "ROLLBACK TO SAVEPOINT":
            self._held = set(self._savepoints.get(name, self._held))


def locked_by(sql: str, parameters: Any = None) -> set[Lock]:
    """What *sql* locks, of all that has a place in the order."""
    tables = {match[1] for match in _CHANGED.finditer(sql)}
    # Parts of a statement end with their parenthesis: a lock is on the table of its own part.
    for part in re.split(r"\),|;", sql):
        tables |= {match[1] for match in _SELECTED.finditer(part)}
    locks = {_LOCK_OF[table] for table in tables}
    if "pg_advisory_xact_lock" in sql and parameters and LOCK in parameters:
        locks.add(Lock.BLOCKING)
    return locks


def _watch(connection: BaseDatabaseWrapper, **_: object) -> None:
    if not any(isinstance(it, Watch) for it in connection.execute_wrappers):
        connection.execute_wrappers.append(Watch(connection))


def pytest_configure() -> None:
    connection_created.connect(_watch, dispatch_uid="tests.lock_order", weak=False)
    for connection in connections.all(initialized_only=True):
        _watch(connection)
