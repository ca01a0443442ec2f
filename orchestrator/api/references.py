"""What an address names: a job, execution or node by name, id, or the beginning of an id."""

from __future__ import annotations

import re

from nodes.models import Node
from orchestrator import endpoint
from orchestrator.explain.errors import NotFound
from orchestrator.models import Execution, Job

# Whatever else is asked for is not there; the database need not be asked, and could not be.
_REFERENCE = re.compile(r"[A-Za-z0-9._-]{1,63}", re.ASCII)


def job(ref: str) -> Job:
    return endpoint.find_job(_checked("job", ref))


def execution(ref: str) -> Execution:
    return endpoint.find_execution(_checked("execution", ref))


def node(ref: str, *, removed: bool = False, whole: bool = False) -> Node:
    return endpoint.find_node(_checked("node", ref), removed=removed, whole=whole)


def _checked(kind: str, ref: str) -> str:
    if not _REFERENCE.fullmatch(ref):
        raise NotFound(kind=kind, name=ref[:100])
    return ref
