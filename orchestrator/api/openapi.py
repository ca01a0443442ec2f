"""The OpenAPI document, made of what every operation says that it takes and answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, get_origin

import msgspec
from django.conf import settings
from ninja.operation import Operation as Route

from orchestrator import spec
from orchestrator.spec import NAME

from . import operations
from .authentication import Bearer
from .idempotency import LONGEST
from .operations import Operation
from .schemas import JOB_SPEC, Page, ProblemDetails

Schema = dict[str, Any]

_TEXT = {"type": "string"}

_PARAMETERS: Mapping[str, Schema] = {
    "ref": {
        "in": "path",
        "required": True,
        "description": "name, id, or four or more characters that an id begins with",
        "schema": _TEXT | {"pattern": "^[A-Za-z0-9._-]{1,63}$"},
    },
    "number": {
        "in": "path",
        "required": True,
        "description": "the id of an evaluation",
        "schema": _TEXT | {"pattern": "^[0-9]{1,18}$"},
    },
    "name": {
        "in": "path",
        "required": True,
        "description": "of a namespace",
        "schema": _TEXT | {"pattern": f"^{NAME.pattern}$"},
    },
    "Idempotency-Key": {
        "in": "header",
        "description": "of your own: what is sent again with it is done once",
        "schema": _TEXT | {"pattern": f"^[!-~]([ -~]{{0,{LONGEST - 2}}}[!-~])?$"},
    },
    "If-Match": {
        "in": "header",
        "description": "the ETag that you have seen: 412 when it is another now",
        "schema": _TEXT,
    },
    "If-None-Match": {
        "in": "header",
        "description": "the ETag that you have: 304 when it is still the same",
        "schema": _TEXT,
    },
    "Create-Only": {
        "in": "header",
        "name": "If-None-Match",
        "description": "412 when there is one already",
        "schema": {"enum": ["*"]},
    },
}
_HEADERS = {
    "X-Request-Id": "yours if you sent one; it is in our log, too",
    "Cache-Control": "whether the answer may be kept",
    "ETag": "the tag of all that is shown",
    "Link": 'the next page, with rel="next"',
    "Idempotency-Replayed": "`true` when this is the first answer again",
    "WWW-Authenticate": "how to sign in",
    "Retry-After": "seconds until it is worth another try",
    "Connection": "`close`: the rest of the request is not read",
}
#: What an answer of this status says beside its body.
_HEADERS_OF = {401: ("WWW-Authenticate",), 413: ("Connection",), 503: ("Retry-After",)}


def document(routes: Iterable[tuple[str, str, Route]], **info: str) -> Schema:
    """The document of *routes*: the path and name of each, and what ninja knows of it."""
    entries = [_Entry(path, name, it, operations.of(it.view_func)) for path, name, it in routes]
    said = [it.said for it in entries]
    schemas = _Schemas(
        sent=[kind for it in said for kind in (it.body, *it.answers.values(), ProblemDetails)],
        queries=[it.query for it in said],
    )
    paths: dict[str, Schema] = {}
    for entry in entries:
        paths.setdefault(entry.path, {})[entry.method.lower()] = entry.shown(schemas)
    refusals = sorted({status for it in entries for status in it.refusals()})
    return {
        "openapi": "3.1.0",
        "info": info,
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "parameters": {name: {"name": name, **it} for name, it in _PARAMETERS.items()},
            "headers": {
                name: {"description": it, "schema": _TEXT} for name, it in _HEADERS.items()
            },
            "responses": {
                _title(it): {
                    "description": HTTPStatus(it).phrase,
                    "content": schemas.content(ProblemDetails, "application/problem+json"),
                    "headers": _headers(*_HEADERS_OF.get(it, ())),
                }
                for it in refusals
            },
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME},
                "csrf": {"type": "apiKey", "in": "header", "name": "X-CSRFToken"},
            },
        },
    }


class _Schemas:
    """The schemas of what is *sent* and asked, and the components that they refer to."""

    def __init__(self, sent: Iterable[Any], queries: Iterable[Any]) -> None:
        structs = [
            it for it in dict.fromkeys(sent) if it is not spec.JobSpec and not isinstance(it, tuple)
        ]
        asked = list(dict.fromkeys(queries))
        ref = "#/components/schemas/{name}"
        shown, components = msgspec.json.schema_components([*structs, *asked], ref_template=ref)
        job = spec.JobSpec.model_json_schema(ref_template=ref.format(name="JobSpec.{model}"))
        self._of = dict(zip([*structs, *asked], shown, strict=True))
        self._of[spec.JobSpec] = {"$ref": JOB_SPEC}
        self._fields = {it: components.pop(self._of[it]["$ref"].rpartition("/")[2]) for it in asked}
        parts = {f"JobSpec.{name}": it for name, it in job.pop("$defs").items()}
        self.components = {**components, "JobSpec": job, **parts}

    def content(self, kind: Any, media: str = "application/json") -> Schema:
        """A body of this *kind*; of a tuple of media types, text of any of them."""
        if isinstance(kind, tuple):
            return {it: {"schema": _TEXT} for it in kind}
        return {media: {"schema": self._of[kind]}}

    def parameters(self, query: Any) -> list[Schema]:
        """The fields of *query*; several words of one are separated by commas."""
        fields = self._fields[query]["properties"]
        return [
            {"name": name, "in": "query", "explode": False, "schema": it}
            for name, it in fields.items()
        ]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One operation of the document."""

    path: str
    name: str
    route: Route
    said: Operation

    @property
    def method(self) -> str:
        return str(self.route.methods[0])

    @property
    def scope(self) -> str | None:
        """What a caller must be allowed; None if nobody need sign in."""
        return next((it.scope for it in self.route.auth_callbacks if isinstance(it, Bearer)), None)

    @property
    def repeatable(self) -> bool:
        """Whether it takes an Idempotency-Key."""
        return self.method != "GET" and self.said.changes

    @property
    def streams(self) -> bool:
        return isinstance(self.said.answers.get(200), tuple)

    def shown(self, schemas: _Schemas) -> Schema:
        answers = {str(it): self._answer(it, schemas) for it in self.said.answers}
        if self.method == "GET" and not self.streams:
            answers["304"] = {"description": "Not Modified", "headers": _headers("ETag")}
        refusals = {str(it): _ref("responses", _title(it)) for it in sorted(self.refusals())}
        shown: Schema = {
            "operationId": self.name,
            "summary": self.route.summary,
            "description": self.route.description,
            "tags": self.route.tags,
            "parameters": self._parameters() + schemas.parameters(self.said.query),
            "responses": answers | refusals,
            "security": self._security(),
        }
        if self.method in {"POST", "PUT"}:
            shown["requestBody"] = {
                "content": schemas.content(self.said.body),
                "required": self.said.needs_body,
            }
        return shown

    @property
    def in_namespace(self) -> bool:
        """Whether it looks into a namespace, which may not be there."""
        return "namespace" in self.said.query.__struct_fields__

    def refusals(self) -> set[int]:
        """The statuses of every error that it may answer with."""
        changes = self.method != "GET"
        return {
            *(400, 500, 503),
            *self.said.problems,
            *((401,) if self.scope else ()),
            *((403,) if self.scope else ()),
            *((404,) if "{" in self.path or self.in_namespace else ()),
            *((409,) if "{ref}" in self.path else ()),
            *((409, 422) if self.repeatable else ()),
            *((412,) if self.said.conditions or not (changes or self.streams) else ()),
            *((413, 415) if changes else ()),
        }

    def _answer(self, status: int, schemas: _Schemas) -> Schema:
        kind = self.said.answers[status]
        more = [
            *(["ETag"] if self.method == "GET" and not self.streams else []),
            *(["Link"] if get_origin(kind) is Page else []),
            *(["Idempotency-Replayed"] if self.repeatable else []),
        ]
        return {
            "description": HTTPStatus(status).phrase,
            "content": schemas.content(kind),
            "headers": _headers(*more),
        }

    def _parameters(self) -> list[Schema]:
        conditions = self.said.conditions
        if self.method == "GET" and not self.streams:
            conditions = ("If-Match", "If-None-Match")
        elif "If-None-Match" in conditions:
            conditions = [*(set(conditions) - {"If-None-Match"}), "Create-Only"]
        keys = ["Idempotency-Key"] if self.repeatable else []
        names = [*re.findall(r"{(\w+)}", self.path), *keys, *conditions]
        return [_ref("parameters", it) for it in names]

    def _security(self) -> list[Schema]:
        if self.scope is None:
            return []
        session: Schema = {"session": []} | ({"csrf": []} if self.method != "GET" else {})
        return [{"token": [self.scope]}, session]


def _headers(*names: str) -> Schema:
    return {it: _ref("headers", it) for it in ("X-Request-Id", "Cache-Control", *names)}


def _title(status: int) -> str:
    return HTTPStatus(status).phrase.replace(" ", "")


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}
