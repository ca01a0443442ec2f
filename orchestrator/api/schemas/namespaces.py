"""Namespaces, and what is sent to make one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from orchestrator.spec import NAME

from .answers import Answer
from .requests import Body


class Namespace(Answer):
    """`role` is the caller's there."""

    name: str
    description: str
    role: str
    created_at: datetime


class NewNamespace(Body):
    # Python's $ matches before a last newline, too.
    name: Annotated[str, Meta(max_length=63, pattern=f"^{NAME.pattern}$(?!\n)")]
    description: Annotated[str, Meta(max_length=500, pattern="^[^\0]*$")] = ""
