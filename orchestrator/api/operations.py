"""What an operation takes and answers, said once: requests are read and OpenAPI is made from it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, get_type_hints

import msgspec
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from orchestrator.spec.parsing import LARGEST

from . import parsing
from .schemas import Nothing, Parameters

OURS = ("query", "body")
View = Callable[..., HttpResponseBase]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one address.

    *answers* has the struct of each good status, or the media types of a stream.  *conditions* are
    the headers of RFC 9110, 13.1, that it looks at, *problems* the refusals that are its own.
    *changes* is false for what changes nothing although it takes a body.
    """

    answers: Mapping[int, Any]
    query: type[Any]
    body: type[Any]
    conditions: Collection[str]
    problems: Collection[int]
    changes: bool

    @property
    def needs_body(self) -> bool:
        """Whether there is something that must be said."""
        if not issubclass(self.body, msgspec.Struct):
            return True
        return any(it.required for it in msgspec.structs.fields(self.body))


def operation(
    answers: Any,
    *,
    conditions: Collection[str] = (),
    problems: Collection[int] = (),
    changes: bool = True,
    largest: int = LARGEST,
) -> Callable[[View], View]:
    """Describe a view, and read for it what its parameters `query` and `body` are annotated with.

    Whatever else is sent is refused; *largest* is how many bytes a body may have.
    """

    def described(view: View) -> View:
        hints = get_type_hints(view)
        query, body = hints.get("query", Parameters), hints.get("body", Nothing)

        @wraps(view)
        def read(request: HttpRequest, **named: Any) -> HttpResponseBase:
            sent: dict[str, Any] = {"query": parsing.query(request, query)}
            if request.method != "GET":
                sent["body"] = parsing.body(request, body, at_most=largest)
            return view(request, **named, **{name: sent[name] for name in sent if name in hints})

        signature = inspect.signature(view, eval_str=True)
        read.__signature__ = signature.replace(  # type: ignore[attr-defined]  # Ninja looks at it.
            parameters=[it for it in signature.parameters.values() if it.name not in OURS]
        )
        read.operation = Operation(  # type: ignore[attr-defined]
            answers=answers if isinstance(answers, Mapping) else {200: answers},
            query=query,
            body=body,
            conditions=conditions,
            problems=problems,
            changes=changes,
        )
        return read

    return described


def of(view: View) -> Operation:
    """What was said of *view*."""
    found: Operation = view.operation  # type: ignore[attr-defined]
    return found
