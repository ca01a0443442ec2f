"""The journal as a feed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta, field

from .answers import Answer
from .requests import MOST, Parameters


class Event(Answer):
    id: int
    at: datetime
    topic: str
    what: str
    actor: str
    message: str
    job_id: UUID | None = field(name="job")
    execution_id: UUID | None = field(name="execution")
    node_id: UUID | None = field(name="node")
    data: dict[str, Any]


class Events(Answer):
    """`cursor` leads on from here, also when nothing has happened yet."""

    items: list[Event]
    cursor: str


class Feed(Parameters):
    cursor: Annotated[
        str,
        Meta(
            max_length=200,
            description="of the last answer; nothing for the beginning, `now` for the end",
        ),
    ] = ""
    limit: Annotated[int, Meta(ge=1, le=MOST)] = 100
    last: Annotated[int, Meta(ge=0, le=MOST, description="only so many newest ones")] = 0
