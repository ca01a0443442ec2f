"""What every answer is made of, and what answers about several things have in common."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta, Struct, field

#: Where the document keeps the schema of a job file.
JOB_SPEC = "#/components/schemas/JobSpec"

_Amount = Annotated[int, Meta(ge=0)]

A = TypeVar("A", bound="Answer")
T = TypeVar("T")


class Answer(Struct, kw_only=True):
    @classmethod
    def of(cls: type[A], row: object, **more: Any) -> A:
        """What *row* has under the names of the fields, and *more*."""
        rest = [name for name in cls.__struct_fields__ if name not in more]
        return cls(**{name: getattr(row, name) for name in rest}, **more)


class Page(Answer, Generic[T]):
    """`next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None


class Mistake(Answer):
    """What is wrong or odd, and the cure; `path` is empty for all that was sent."""

    path: str
    message: str
    hint: str


class Warned(Mistake):
    """`secret`, where there is one, is a name for what should rather be a secret."""

    secret: str | msgspec.UnsetType = msgspec.UNSET


class ProblemDetails(Answer):
    """An error (RFC 9457).  `errors` has each mistake when there are several; nothing was done.

    `current_rev` is the revision of what somebody else has changed, after a failed `If-Match`.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str
    request_id: str
    errors: list[Mistake]
    current_rev: int | msgspec.UnsetType | None = msgspec.UNSET


class Named(Answer):
    id: UUID
    name: str


class NamedJob(Named):
    namespace_id: str = field(name="namespace")


class Resources(Answer):
    """cpu in millicores, memory and disk in bytes, gpu in devices."""

    cpu: _Amount
    memory: _Amount
    disk: _Amount
    gpu: _Amount
