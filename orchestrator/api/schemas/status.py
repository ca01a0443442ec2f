"""The queue and the whole cluster, each on one screen."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from orchestrator.broker.statistics import BrokerStats

from .answers import Answer, Resources
from .requests import Body, Reason


class Queue(Answer):
    """The queue of jobs that wait for evaluation, and whether it is paused."""

    paused: bool
    paused_reason: str
    paused_by: str
    paused_at: datetime | None
    stats: BrokerStats


class NodeCounts(Answer):
    total: int
    approved: int
    waiting_for_approval: int
    connected: int
    lost: int
    draining: int
    degraded: int


class Status(Answer):
    """The cluster on one screen; `missing` is why it is not `ready`."""

    ready: bool
    missing: str
    warning: str
    jobs: dict[str, int]
    nodes: NodeCounts
    capacity: Resources
    allocated: Resources
    queue: Queue


class Pause(Body):
    reason: Annotated[Reason, Meta(min_length=1)]
