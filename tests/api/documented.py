"""Whatever a test is answered is held against the OpenAPI document."""

import json
import re
from functools import cache
from typing import Any

import jsonschema_rs
from django.http import HttpResponse

from orchestrator.api import api


@cache
def document() -> dict[str, Any]:
    return json.loads(json.dumps(api.get_openapi_schema(path_prefix="/api/v1"), default=str))


def check(method: str, path: str, answer: HttpResponse) -> None:
    """Fail unless status, headers, media type and body of *answer* are those that are promised."""
    operation = _operation("GET" if method == "HEAD" else method, path.partition("?")[0])
    if operation is None:
        return
    promised = operation["responses"].get(str(answer.status_code))
    assert promised, f"{method} {path} does not say that it may answer {answer.status_code}"
    promised = _resolved(promised)
    headers = {name for name in answer.headers if name in document()["components"]["headers"]}
    assert headers <= promised["headers"].keys(), f"{method} {path}: {answer.status_code}"
    if answer.status_code == 304:
        return
    media = answer["Content-Type"].partition(";")[0]
    assert media in promised["content"], f"{method} {path} does not say that it answers {media}"
    if media.endswith("json") and method != "HEAD":
        _validator(json.dumps(promised["content"][media]["schema"])).validate(answer.json())


@cache
def _operation(method: str, path: str) -> dict[str, Any] | None:
    for template, methods in sorted(document()["paths"].items()):  # {ref} after any word.
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in methods:
            return methods[method.lower()]
    return None


def _resolved(said: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in said:
        return said
    _, kind, name = said["$ref"].removeprefix("#/").split("/")
    return document()["components"][kind][name]


@cache
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    whole = json.loads(schema) | {"components": document()["components"]}
    return jsonschema_rs.Draft202012Validator(whole)
