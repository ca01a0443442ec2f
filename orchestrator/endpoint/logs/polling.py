"""Executions that readers wait for, looked at together: one query at a time, however many wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from uuid import UUID
from weakref import WeakKeyDictionary

from orchestrator.models import Execution

from .reading import LOOK_AGAIN, ask

Find = Callable[[Collection[UUID]], Mapping[UUID, Execution]]


def found(keys: Collection[UUID]) -> Mapping[UUID, Execution]:
    """Those of the executions that are there, each with its node and its session."""
    return Execution.objects.select_related("node__session").in_bulk(keys)


async def look(key: UUID) -> Execution:
    """The execution as it is now; raises Execution.DoesNotExist."""
    rows = await ask(lambda: found([key]))
    return _of(key, rows)


async def look_again(key: UUID) -> Execution:
    """The execution as it is in a moment, when it is worth to look again."""
    loop = asyncio.get_running_loop()
    polling = _by_loop.get(loop)
    if polling is None:
        polling = _by_loop[loop] = SharedPolling()
    return await polling.again(key)


class SharedPolling:
    """What the readers of one event loop wait for."""

    def __init__(self, find: Find = found, every: float = LOOK_AGAIN) -> None:
        self._find, self._every = find, every
        self._round: asyncio.Task[Mapping[UUID, Execution]] | None = None
        self._keys: set[UUID] = set()

    async def again(self, key: UUID) -> Execution:
        """*key* as the next look finds it; raises what that raises."""
        if self._round is None:
            self._round = asyncio.create_task(self._look())
        self._keys.add(key)
        # A reader that leaves takes the answer from none of the others.
        return _of(key, await asyncio.shield(self._round))

    async def _look(self) -> Mapping[UUID, Execution]:
        await asyncio.sleep(self._every)
        keys, self._keys, self._round = self._keys, set(), None
        return await ask(lambda: self._find(keys))


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, SharedPolling] = WeakKeyDictionary()


def _of(key: UUID, rows: Mapping[UUID, Execution]) -> Execution:
    if key not in rows:
        raise Execution.DoesNotExist
    return rows[key]
