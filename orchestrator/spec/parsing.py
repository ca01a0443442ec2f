"""From text to a JobSpec, with every mistake named at once."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from nodes.errors import MusterError

from . import field_names, json_text
from .mistakes import Mistake, mistake, shown, under, verdict
from .model import JobSpec
from .storage import FIRST

LARGEST = 256 * 1024
MOST_ERRORS = 100


class InvalidSpec(MusterError):
    """The job specification has {count}."""

    code, status = "invalid-spec", 400
    hint = "Correct every path named in errors; nothing was stored."

    def __init__(self, errors: list[Mistake]) -> None:
        super().__init__(count="1 mistake" if len(errors) == 1 else f"{len(errors)} mistakes")
        self.errors = errors


def parse(data: object) -> JobSpec:
    """*data* as a JobSpec; raises InvalidSpec with every mistake: path, message and hint."""
    return _parse(data, {})


def parse_json(text: bytes) -> JobSpec:
    """The JSON *text* as a JobSpec; raises InvalidSpec."""
    if len(text) > LARGEST:
        what = f"is {len(text)} bytes, and may have {LARGEST}"
        raise InvalidSpec([mistake("", what, "Shorten the job file.")])
    try:
        return _parse(*json_text.load(text))
    except json_text.NotJson as error:
        raise InvalidSpec([mistake("", str(error), error.hint)]) from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a job file."""
    schema = JobSpec.model_json_schema(mode="validation")
    fields = schema["properties"]
    schema["properties"] = {name: fields[name] for name in (*FIRST, *fields)}
    schema["required"] = [name for name in schema["properties"] if name in schema["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Muster job file",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _parse(data: object, twice: Mapping[int, list[str]]) -> JobSpec:
    if not isinstance(data, dict):
        raise InvalidSpec([mistake("", "must be an object", "Write name: … and task: ….")])
    try:
        found = list(islice(json_text.unsound(data, twice), MOST_ERRORS))
    except json_text.NotJson as error:
        raise InvalidSpec([mistake("", str(error), error.hint)]) from None
    if found:
        raise InvalidSpec(found)
    if tool := field_names.other_file(data):
        what = f"is a file of {tool}, and no job file of Muster"
        hint = (
            "A job file begins with name: and task:, as in"
            " name: hello, task: {command: [echo, hello]}."
        )
        raise InvalidSpec([mistake("", what, hint)])
    try:
        return JobSpec.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        raise InvalidSpec([_worded(it) for it in details[:MOST_ERRORS]]) from None


# --- words -------------------------------------------------------------------------------------


def _worded(detail: ErrorDetails) -> Mistake:
    location = [str(part) for part in detail["loc"] if part != "[key]"]
    path, context = ".".join(location), detail.get("ctx", {})
    value = "" if "env" in location else shown(detail["input"])  # It may be a secret.
    if detail["type"] == "extra_forbidden":
        if found := field_names.former(location, detail["input"]):
            return mistake(path, *found)
        *parents, key = location
        what = f"is an unknown field {key[:80]!r}"
        return mistake(under(".".join(parents), key), what, field_names.cure(location))
    if detail["type"] == "muster":
        return mistake(path, f"{value} {context['sentence']}".strip(), str(context["hint"]))
    return verdict(detail["type"], path, value, context) or mistake(
        path, f"{value} {detail['msg']}".strip(), "See the manual of job files."
    )
