"""The normal form in which specifications are stored and compared, and the way back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pydantic import BaseModel

from orchestrator.lifecycle import JobType

from . import quantities
from .model import (
    Affinity,
    Approval,
    Backoff,
    JobSpec,
    Needs,
    Network,
    OnLost,
    Retry,
    RetryOn,
    Spread,
    TaskSpec,
    Timeouts,
)


def canonical(spec: JobSpec) -> dict[str, Any]:
    """The whole specification, defaults included, as JSON values that parse back to it.

    Not its namespace: that says where the job lives, and not what it is; and of fields that came
    later, only what is said: the rest is stored as it was before.
    """
    data = spec.model_dump(mode="json", exclude={"namespace"})
    task = data["task"]
    task["resources"]["cpu"] = f"{spec.task.resources.cpu}m"
    for name in _LATER:
        if task[name] == TaskSpec.model_fields[name].default:
            del task[name]
    return data


#: Fields of the task that not every stored specification has.
_LATER = ("run_as", "network")


def load(stored: Mapping[str, Any]) -> JobSpec:
    """The specification that `canonical` wrote, perhaps in an earlier release.

    It was judged when it came in, and what was accepted stays so: only its types are made again.
    Raises KeyError for what was never one.
    """
    spec: JobSpec = _load(JobSpec, stored)
    return spec


def digest(spec: JobSpec) -> str:
    """Equal for equal specifications, however they were written."""
    text = json.dumps(canonical(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def replaces(old: JobSpec, new: JobSpec) -> bool:
    """Whether executions of *old* must be replaced to run *new*.

    Count, priority, labels, retries, timeouts and preferences apply to what already runs.
    """
    return (old.type, old.task, old.requirements) != (new.type, new.task, new.requirements)


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
    "on": lambda words: tuple(RetryOn(word) for word in words),
    "timeouts": partial(_load, Timeouts),
    "on_lost": OnLost,
    "network": Network,
}
