"""Evaluations, and what a list of them is asked with."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from orchestrator.lifecycle import EvaluationState, JobType

from .answers import Answer, Named
from .requests import Paging


class Evaluation(Answer):
    id: int
    job: Named
    type: JobType
    priority: int
    state: EvaluationState
    triggers: dict[str, Any]
    delivery: int
    worker: str
    outcome: str
    error: str
    waited_since: datetime | None
    leased_at: datetime
    finished_at: datetime | None


class EvaluationInFull(Evaluation):
    """`record` says what was looked at when something could not be placed."""

    record: dict[str, Any] | None


class Evaluations(Paging):
    state: tuple[EvaluationState, ...] = ()
