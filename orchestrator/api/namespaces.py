"""Namespaces: listed, made, and removed when they are empty."""

from __future__ import annotations

from functools import partial

from django.http import HttpRequest, HttpResponse
from ninja import Router

from orchestrator import access, endpoint
from orchestrator.explain.errors import NotFound
from orchestrator.models import Namespace

from . import schemas
from .authentication import NAMESPACES, READ, caller
from .idempotency import forget_namespace
from .operations import operation
from .pagination import page_by
from .responses import answer

router = Router(tags=["namespaces"])


@router.get("/namespaces", auth=READ)
@operation(schemas.Page[schemas.Namespace])
def list_namespaces(request: HttpRequest, query: schemas.Paging) -> HttpResponse:
    """Those that the caller may see, by name, with the caller's role in each."""
    found = access.visible(caller(request).rights, Namespace.objects.all())
    return page_by("name", request, query, found, partial(_shown, request))


@router.post("/namespaces", auth=NAMESPACES)
@operation({201: schemas.Namespace}, problems={409})
def create_namespace(request: HttpRequest, body: schemas.NewNamespace) -> HttpResponse:
    """Make a namespace; jobs live in one, and roles are given for one."""
    who = caller(request)
    made = endpoint.create_namespace(body.name, body.description, actor=who.actor, user=who.user)
    return answer(_shown(request, made), 201)


@router.delete("/namespaces/{name}", auth=NAMESPACES)
@operation(schemas.Namespace, problems={409})
def delete_namespace(request: HttpRequest, name: str) -> HttpResponse:
    """Remove a namespace in which no job is, not even one that has ended."""
    if "\0" in name or len(name) > 63:
        raise NotFound(kind="namespace", name=name[:100])
    gone = endpoint.delete_namespace(name, actor=caller(request).actor)
    forget_namespace(name)
    return answer(_shown(request, gone))


def _shown(request: HttpRequest, row: Namespace) -> schemas.Namespace:
    return schemas.Namespace.of(row, role=caller(request).rights.role(row.name).word)
