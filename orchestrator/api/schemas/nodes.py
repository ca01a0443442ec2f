"""Nodes, the tokens that they join with, and what is sent to judge, drain and enrol them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import Meta

from nodes.membership.joining import NAME
from nodes.protocol.lifecycle import Approval, Connection

from .answers import Answer, Resources
from .requests import Body, Paging, Reason


class Node(Answer):
    """`quarantined` and `degraded` say why; `load` is as its last heartbeat said."""

    id: UUID
    name: str
    sentence: str
    approval: Approval
    connection: Connection
    connection_since: datetime
    eligible: bool
    draining: bool
    quarantined: str
    degraded: str
    labels: dict[str, str]
    attributes: dict[str, str]
    capacity: Resources
    allocated: Resources
    running: int
    load: float
    seen_at: datetime | None
    rev: int
    created_at: datetime


class JoinToken(Answer):
    """The token is never shown again."""

    token: str


class Enrolled(Answer):
    """The id of the node, and the credential that it signs in with, never shown again."""

    node: UUID
    credential: str
    name: str
    approval: Approval


class Eligible(Body):
    eligible: bool = True
    reason: Reason = ""


class Drain(Body):
    drain: bool = True


class NewJoinToken(Body):
    """What a join token allows; `expires_in` in seconds."""

    uses: Annotated[int, Meta(ge=1, le=10_000)] = 1
    expires_in: Annotated[int, Meta(ge=60, le=30 * 86400)] = 3600
    auto_approve: bool = False
    labels: dict[str, str] = {}
    label: Annotated[str, Meta(max_length=100, pattern="^[^\0]*$")] = ""


class Enrolment(Body):
    """`key` is a secret that the agent makes itself, to ask again when the answer was lost."""

    token: Annotated[str, Meta(max_length=500)]
    name: Annotated[str, Meta(max_length=500, extra_json_schema={"pattern": f"^{NAME.pattern}$"})]
    labels: dict[str, str] = {}
    key: Annotated[str, Meta(max_length=500)] = ""


class Nodes(Paging):
    approval: tuple[Approval, ...] = ()
    connection: tuple[Connection, ...] = ()
