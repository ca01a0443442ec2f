"""What an unknown field was meant to be: the same name elsewhere, a near one, or another tool's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

from .model import JobSpec

#: What job files of Nomad, Kubernetes, Compose and Bacalhau call a field of ours.
_COUNTERPARTS: Mapping[str, str] = {
    **dict.fromkeys(("replicas", "completions", "parallelism", "instances"), "count"),
    **dict.fromkeys(("engine", "executor", "runtime", "backend"), "task.driver"),
    **dict.fromkeys(("args", "cmd", "entrypoint", "run", "script", "exec"), "task.command"),
    **dict.fromkeys(("environment", "environmentvariables", "envvars", "variables"), "task.env"),
    **dict.fromkeys(("user", "runasuser", "username", "uid"), "task.run_as"),
    **dict.fromkeys(("networkmode", "networking", "networks"), "task.network"),
    **dict.fromkeys(("options", "params", "plugin", "settings"), "task.config"),
    **dict.fromkeys(("requests", "limits", "needs"), "task.resources"),
    **dict.fromkeys(("cpus", "cores", "millicores"), "task.resources.cpu"),
    **dict.fromkeys(("mem", "memorymb", "ram", "memlimit"), "task.resources.memory"),
    **dict.fromkeys(
        ("storage", "diskmb", "ephemeraldisk", "ephemeralstorage"), "task.resources.disk"
    ),
    **dict.fromkeys(("gpus", "nvidia.com/gpu", "device", "devices"), "task.resources.gpu"),
    **dict.fromkeys(("nodeselector", "constraint", "placement", "nodeaffinity"), "constraints"),
    **dict.fromkeys(("affinity", "preferences"), "affinities"),
    **dict.fromkeys(("topologyspreadconstraints", "spreads"), "spread"),
    **dict.fromkeys(("restart", "restartpolicy", "reschedule", "retries", "retrypolicy"), "retry"),
    **dict.fromkeys(("backofflimit", "maxattempts", "maxretries"), "retry.attempts"),
    **dict.fromkeys(("timeout", "activedeadlineseconds", "totaltimeout"), "timeouts.total"),
    **dict.fromkeys(("executiontimeout", "maxruntime"), "timeouts.execution"),
    **dict.fromkeys(("queuetimeout", "queuedeadline"), "timeouts.queue"),
    **dict.fromkeys(
        ("killtimeout", "stopgraceperiod", "terminationgraceperiodseconds", "graceperiod"), "grace"
    ),
    **dict.fromkeys(("disconnect", "maxclientdisconnect", "stoponclientdisconnect"), "on_lost"),
    **dict.fromkeys(("meta", "annotations", "tags"), "labels"),
    **dict.fromkeys(("priorityclassname", "prio"), "priority"),
    **dict.fromkeys(("tasks", "containers", "services", "template", "group", "groups"), "task"),
    **dict.fromkeys(("kind", "jobtype"), "type"),
    **dict.fromkeys(("id", "jobname"), "name"),
}

#: Fields of theirs that have no counterpart, and what stands for them here.
_ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(
        ("image", "dockerimage"),
        "A task is a program of the node and no image: say in task.command what runs it there.",
    ),
    **dict.fromkeys(
        ("workdir", "workingdir", "workingdirectory"),
        "A task begins in an empty directory of its own: change it in task.command, with sh -c.",
    ),
    **dict.fromkeys(
        ("apiversion", "version"), "Leave it out: a job's versions are counted by Muster."
    ),
    **dict.fromkeys(
        ("datacenters", "region", "namespace"),
        "There is none: label nodes, and name the labels in constraints.",
    ),
    **dict.fromkeys(
        ("volumes", "volumemounts", "inputsources", "artifacts", "ports", "expose"),
        "There is nothing of the kind: a task sees the files and the network of its node.",
    ),
    **dict.fromkeys(
        ("metadata", "spec"), "Leave the level out: what stands in it belongs to the top."
    ),
}


#: Whose file it is that has these fields at its top, the names plain, and no task.
_FILES: tuple[tuple[str, frozenset[str]], ...] = (
    ("Compose", frozenset({"services"})),
    ("Nomad", frozenset({"job"})),
    ("Kubernetes", frozenset({"apiversion", "kind"})),
    ("Kubernetes", frozenset({"kind", "spec"})),
    ("Kubernetes", frozenset({"metadata", "spec"})),
)


def former(location: list[str], value: object) -> tuple[str, str] | None:
    """What is said of a field that earlier releases had, and its cure; None of any other."""
    if location != ["retry", "on"]:
        return None
    words = value if isinstance(value, list) else [value]  # A plain word is meant as a list of it.
    on = {str(word) for word in words}
    meant = {"failed": "retry.attempts: 1", "lost": "on_lost: fail"}
    if not on <= meant.keys():
        cure = "write on_lost: replace, wait or fail"
    elif on == meant.keys():
        cure = "this is what happens without it"
    else:
        cure = "write " + " and ".join(it for word, it in meant.items() if word not in on)
    what = "is a field of earlier releases: on_lost says what becomes of executions that are lost"
    return f"{json.dumps(value)[:60]} {what}", f"Leave it out; {cure}."


def other_file(data: Mapping[Any, Any]) -> str:
    """Of which other tool *data* is a file; empty when it may be one of ours."""
    if "task" in data:
        return ""
    names = {_plain(name) for name in data if isinstance(name, str)}
    return next((tool for tool, fields in _FILES if fields <= names), "")


def cure(location: list[str]) -> str:
    """What to write in place of the unknown field at *location*."""
    *parents, key = location
    key = key[:80]
    here = [part for part in parents if not part.isdigit()]
    owner = ".".join(here)
    word = _plain(key)
    known = [name for parent, name in _FIELDS if parent == owner]
    if near := get_close_matches(key.lower(), known, n=1, cutoff=0.75):
        return f"Did you mean {near[0]!r}?"
    elsewhere = [path for parent, path in _paths() if _plain(path.rpartition(".")[2]) == word]
    meant = sorted(elsewhere, key=lambda path: (path.count("."), path))
    if not meant and word in _COUNTERPARTS:
        meant = [_COUNTERPARTS[word]]
    if meant:
        return f"Did you mean {_as_seen_from(owner, meant[0])}?"
    if word in _ELSEWHERE:
        return _ELSEWHERE[word]
    names = {path.rpartition(".")[2]: path for _, path in reversed(_paths())}
    if far := get_close_matches(key.lower(), names, n=1, cutoff=0.75):
        return f"Did you mean {_as_seen_from(owner, names[far[0]])}?"
    if near := get_close_matches(key.lower(), known, n=1, cutoff=0.5):
        return f"Did you mean {near[0]!r}?"
    return f"Known here: {', '.join(known)}."


def _as_seen_from(owner: str, path: str) -> str:
    """*path* as it is named: by its last word where the field stands beside the unknown one."""
    parent, _, name = path.rpartition(".")
    if parent == owner:
        return repr(name)
    return path if parent or not owner else f"{path}, at the top level"


def _paths() -> list[tuple[str, str]]:
    return [(parent, f"{parent}.{name}" if parent else name) for parent, name in _FIELDS]


def _plain(name: str) -> str:
    """*name* without what the tools write differently: case, _ and -."""
    return re.sub(r"[_-]", "", name).lower()


def _fields(part: type[BaseModel], parent: str = "") -> Iterator[tuple[str, str]]:
    """Every field of *part* and of the parts in it, as the path of its owner and its name."""
    inner: list[tuple[type[BaseModel], str]] = []
    for name, field in part.model_fields.items():
        yield parent, name
        path = f"{parent}.{name}" if parent else name
        kinds = (field.annotation, *get_args(field.annotation))
        inner += [(it, path) for it in kinds if isinstance(it, type) and issubclass(it, BaseModel)]
    for kind, path in inner:
        yield from _fields(kind, path)


_FIELDS = tuple(_fields(JobSpec))
