"""What of a specification is stored and compared, and how it is read again.

Stored is a job's *body*, in what it differs from the defaults, so a field that a release adds
changes no job that is there.  What it is called, and how often and how urgently it runs, are
columns of the job.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from pydantic import BaseModel

from orchestrator.lifecycle import JobType

from . import quantities
from .model import (
    Affinity,
    Approval,
    Backoff,
    JobBody,
    JobSpec,
    Needs,
    Network,
    OnLost,
    Retry,
    Spread,
    TaskSpec,
    Timeouts,
)

_NOT_OF_THE_BODY = set(JobSpec.model_fields) - set(JobBody.model_fields)
FIRST = ("name", "type", "count", "priority", "labels")
"""The order in which people write these; others come after them."""


def body(spec: JobBody) -> dict[str, Any]:
    """What *spec* says of the body and is not the default, as JSON values that `load` reads."""
    data = spec.model_dump(mode="json", exclude=_NOT_OF_THE_BODY, exclude_defaults=True)
    return _worded(data, spec)


def canonical(spec: JobBody) -> dict[str, Any]:
    """All that *spec* says, defaults included, as JSON values that parse back to it.

    Not its namespace: that says where the job lives, and not what it is.
    """
    data = _worded(spec.model_dump(mode="json", exclude={"namespace"}), spec)
    return {name: data[name] for name in (*FIRST, *data) if name in data}


def in_full(stored: Mapping[str, Any], **intent: Any) -> dict[str, Any]:
    """What is stored with all defaults, and *intent*, as people read it.

    What was never a specification is shown as it is.
    """
    try:
        data = canonical(load(stored))
    except KeyError:
        data = dict(stored)
    return {name: it for name in (*FIRST, *data) if (it := (intent | data).get(name)) is not None}


def load(stored: Mapping[str, Any]) -> JobBody:
    """The body that was stored, in this release or another one.

    It was judged when it came in, and what was accepted stays so: only its types are made again;
    what this release does not know is passed over.  Raises KeyError for what was never one.
    """
    found: JobBody = _load(JobBody, _without_retry_on(stored))
    return found


class Stored(NamedTuple):
    """A body as it is stored, and its digests.

    ``digest`` is equal for equal bodies, however they were written, ``generation`` for those that
    run the same.  Limits are not of it: they hold for what is placed after, and nothing that runs
    is killed for them.
    """

    body: dict[str, Any]
    digest: str
    generation: str


def stored(spec: JobBody) -> Stored:
    """What is stored of *spec*."""
    it = body(spec)
    return Stored(it, _digest(it), _digest({"task": it["task"]}))


def digest(spec: JobBody) -> str:
    return stored(spec).digest


def generation(spec: JobBody) -> str:
    return stored(spec).generation


def _digest(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _worded(data: dict[str, Any], spec: JobBody) -> dict[str, Any]:
    """*data* with an amount of cpu that is read as such."""
    resources = data["task"].get("resources", {})
    if "cpu" in resources:
        resources["cpu"] = f"{spec.task.resources.cpu}m"
    return data


def _without_retry_on(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """*stored*, where an earlier release said by `retry.on` what is not tried again."""
    retry = stored.get("retry", {})
    on = retry.get("on", ("failed", "lost"))
    said: dict[str, Any] = {}
    if "failed" not in on:
        said["retry"] = {**retry, "attempts": 1}
    if "lost" not in on:
        said["on_lost"] = "fail"
    return {**stored, **said}


def _load(kind: type[BaseModel], stored: Mapping[str, Any]) -> Any:
    made = {
        name: _LOADED[name](stored[name]) if name in _LOADED else stored[name]
        for name, field in kind.model_fields.items()
        if name in stored or field.is_required()
    }
    return kind.model_construct(**made)


#: How the fields that are more than JSON are made, whichever part they are of.
_LOADED: Mapping[str, Callable[[Any], Any]] = {
    "type": JobType,
    "approval": Approval,
    "task": partial(_load, TaskSpec),
    "command": tuple,
    "resources": partial(_load, Needs),
    "cpu": quantities.millicores,
    "constraints": tuple,
    "affinities": lambda them: tuple(_load(Affinity, it) for it in them),
    "spread": lambda them: tuple(_load(Spread, it) for it in them),
    "retry": partial(_load, Retry),
    "backoff": Backoff,
    "timeouts": partial(_load, Timeouts),
    "on_lost": OnLost,
    "network": Network,
}
