"""Reports in, in batches: one intake per web process, for all its sessions.

A flush begins at once when none is under way; what arrives meanwhile waits for the next, so
batches grow with the load and nobody waits for a timer.  The frames of one node are applied in
the order they came.  A database that is away delays frames and loses none: they are in the
ledger of their node until they are acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from uuid import UUID

import structlog
from django.db import InterfaceError, OperationalError, connection, connections

from .callbacks import Inbound, Receive, Verdict

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: Reports in one transaction, beyond which a batch takes no further frame.
MOST_REPORTS = 500
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
#: A batch that fails this often while the database answers is taken apart.
SUSPICIOUS = 3

#: The database did not do it, for reasons that may pass: an outage, a deadlock, a timeout.
PASSING = (OperationalError, InterfaceError)

Settled = tuple[Inbound, Verdict]


class Intake:
    """Takes frames, has them applied, and says what became of each.

    *settle* is awaited once a flush, with every frame of it.
    """

    def __init__(
        self, receive: Receive, settle: Callable[[Sequence[Settled]], Awaitable[None]]
    ) -> None:
        self._receive = receive
        self._settle = settle
        self._waiting: deque[Inbound] = deque()
        self._arrived = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="intake")
        self.frames = self.reports = self.flushes = 0

    @property
    def backlog(self) -> int:
        return len(self._waiting)

    def submit(self, frame: Inbound) -> None:
        """Have *frame* applied, after all the frames submitted before it."""
        self._waiting.append(frame)
        self._arrived.set()

    async def run(self) -> None:
        """Flush, for ever."""
        while True:
            await self._arrived.wait()
            batch = self._take()
            verdicts = await self._apply(batch)
            self.flushes += 1
            self.frames += len(batch)
            self.reports += sum(len(frame.reports) for frame in batch)
            await self._settle(list(zip(batch, verdicts, strict=True)))

    def _take(self) -> list[Inbound]:
        batch = [self._waiting.popleft()]
        reports = len(batch[0].reports)
        # Frames without reports only say that orders were taken; those count too.
        while self._waiting and len(batch) < MOST_REPORTS:
            reports += len(self._waiting[0].reports)
            if reports > MOST_REPORTS:
                break
            batch.append(self._waiting.popleft())
        if not self._waiting:
            self._arrived.clear()
        return batch

    async def _apply(self, batch: Sequence[Inbound]) -> Sequence[Verdict]:
        """The verdicts on *batch*, however long the database takes to give them."""
        loop = asyncio.get_running_loop()
        pause, failures = FIRST_PAUSE, 0
        while True:
            apart = failures >= SUSPICIOUS
            attempt = self._one_by_one if apart else self._at_once
            try:
                return await loop.run_in_executor(self.thread, with_connection, attempt, batch)
            except PASSING as error:
                # Only a database that answers otherwise makes the batch itself suspicious.
                alive = await loop.run_in_executor(self.thread, _database_answers)
                failures += alive
                log.warning("intake waits", error=str(error), frames=len(batch), pause=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _at_once(self, batch: Sequence[Inbound]) -> Sequence[Verdict]:
        try:
            return self._receive(batch)
        except PASSING:
            raise
        except Exception:
            log.exception("a batch is taken apart", frames=len(batch))
            return self._one_by_one(batch)

    def _one_by_one(self, batch: Sequence[Inbound]) -> Sequence[Verdict]:
        """Apply each frame alone, so that a poisonous one harms no other node."""
        verdicts: list[Verdict] = []
        ended: dict[UUID, Verdict] = {}
        for frame in batch:
            verdict = ended.get(frame.node) or self._alone(frame)
            if verdict in (Verdict.REFUSED, Verdict.LATER):
                ended[frame.node] = verdict
            verdicts.append(verdict)
        return verdicts

    def _alone(self, frame: Inbound) -> Verdict:
        try:
            (verdict,) = self._receive([frame])
        except PASSING as error:
            if not _database_answers():
                raise
            # What it waits for may be held for long: its node says it again, the others go on.
            log.warning("a frame waits", node=str(frame.node), seq=frame.seq, error=str(error))
            return Verdict.LATER
        except Exception:
            log.exception("a frame is refused", node=str(frame.node), seq=frame.seq)
            return Verdict.REFUSED
        return verdict


def with_connection(call: Callable[..., T], *arguments: object) -> T:
    """Call in this thread, which keeps no connection afterwards.

    A connection that the database closed meanwhile is never used, and a pool gets its back.
    """
    try:
        return call(*arguments)
    finally:
        connections.close_all()


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except PASSING:
        return False
    finally:
        connections.close_all()
    return True
