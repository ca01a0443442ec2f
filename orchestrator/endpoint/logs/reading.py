"""What is asked of a log, what is answered, and how the database is asked meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import Error

from nodes.intake import with_connection
from nodes.log_watch import CREDIT
from orchestrator.endpoint.health import trouble_behind
from orchestrator.lifecycle import OBSERVED, Observed

#: How often to look whether a task has started, a node is back, or a job has new executions.
LOOK_AGAIN = 0.5
#: How long the node of a followed task may be away before the reader is told and let go.
PATIENCE = 60.0

BEFORE = frozenset(OBSERVED.live) - {Observed.RUNNING, Observed.PUBLISHING}
NEVER_RAN = {Observed.NEW, Observed.ASK_FOR_BID_REJECTED, Observed.BID_REJECTED}

Stream = Literal["stdout", "stderr"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Which of the two streams, how many of its last bytes, and whether to go on to its end.

    *ahead* is how many bytes may be on their way to a reader that has not taken them.
    """

    stream: Stream = "stdout"
    tail: int | None = None
    follow: bool = False
    ahead: int = CREDIT


@dataclass(frozen=True, slots=True)
class Piece:
    """Something to print, and where in the log of which execution one has read then.

    A note is a line of ours about the log, and no part of it.  *for_now* is why nothing more
    comes to who follows, though the task goes on: there may be more later, from *after* on.
    """

    execution: UUID
    data: bytes
    after: int
    is_note: bool = False
    for_now: str = ""


async def ask(question: Callable[[], T]) -> T:
    """Ask the database, and keep no connection: the reader may stay for hours.

    A database that is away for a moment is asked again, since what was told cannot be taken back.
    """
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            return await sync_to_async(with_connection)(question)
        except Error as error:
            if trouble_behind(error) is None or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(LOOK_AGAIN)
