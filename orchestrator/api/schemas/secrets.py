"""Secrets, without their values, and what is sent to put one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from msgspec import Meta, field

from orchestrator.spec.secrets import LONGEST, SHORTEST

from .answers import Answer
from .requests import Body


class Secret(Answer):
    """`used_by` names up to ten jobs that name it and have not ended.  No answer has its value."""

    name: str
    namespace_id: str = field(name="namespace")
    version: int
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
    used_by: list[str]


class KeptSecret(Secret):
    """When not `changed`, it had that value already."""

    created: bool
    changed: bool


class SecretValue(Body):
    """What a task will find in the variable that names the secret."""

    #: Fields that no answer shows, not even one that says what is wrong with them.
    never_shown: ClassVar[tuple[str, ...]] = ("value",)

    value: Annotated[
        str,
        Meta(
            description="characters that tasks may not have in variables, as U+0000, are refused",
            extra_json_schema={"minLength": SHORTEST, "maxLength": LONGEST, "writeOnly": True},
        ),
    ]
