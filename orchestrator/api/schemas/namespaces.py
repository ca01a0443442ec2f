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
    #: To Python's expressions `$` is before a newline at the end, too.
    name: Annotated[str, Meta(max_length=63, pattern=rf"^{NAME.pattern}(?!\n)$")]
    description: Annotated[str, Meta(max_length=500, pattern="^[^\0]*$")] = ""
