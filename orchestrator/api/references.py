"""What an address names: a job, execution or node by name, id, or the beginning of an id.

Only what the caller may see is found: the rest is not there, in the same words.
"""

from __future__ import annotations

import re

from django.http import HttpRequest

from nodes.models import Node
from orchestrator import access, endpoint
from orchestrator.access.sight import ALL
from orchestrator.explain.errors import NotFound
from orchestrator.models import Execution, Job
from orchestrator.models.access import DEFAULT
from orchestrator.spec.mistakes import mistake

from .authentication import caller
from .problems import invalid_parameters

# Whatever else is asked for is not there; the database need not be asked, and could not be.
_REFERENCE = re.compile(r"[A-Za-z0-9._-]{1,63}", re.ASCII)


def job(request: HttpRequest, ref: str, verb: str = "see") -> Job:
    """The job, to which the caller may do *verb*: by its name in the request's namespace."""
    rights, asked = caller(request).rights, request.GET.get("namespace") or DEFAULT
    rows = access.visible(rights, Job.objects.all())
    found = endpoint.find_job(_checked("job", ref), rows, None if asked == ALL else asked)
    access.require(rights, verb, found)
    return found


def one_namespace(asked: str, why: str) -> str:
    """*asked*, which may name no namespace, but not all of them; raises Problem, and says *why*."""
    if asked == ALL:
        hint = f"Name one namespace: {why}."
        raise invalid_parameters([mistake("namespace", "cannot be * here", hint)])
    return asked


def execution(request: HttpRequest, ref: str) -> Execution:
    rows = access.visible(caller(request).rights, Execution.objects.all())
    return endpoint.find_execution(_checked("execution", ref), rows)


def node(ref: str, *, removed: bool = False, whole: bool = False) -> Node:
    return endpoint.find_node(_checked("node", ref), removed=removed, whole=whole)


def _checked(kind: str, ref: str) -> str:
    if not _REFERENCE.fullmatch(ref):
        raise NotFound(kind=kind, name=ref[:100])
    return ref
