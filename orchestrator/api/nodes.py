"""Nodes: listed, judged, drained; and how a new one joins."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import msgspec
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from msgspec import Meta
from ninja import Query, Router
from pydantic import Field

from nodes import membership
from nodes.models import Node
from nodes.protocol.lifecycle import APPROVAL, CONNECTION
from orchestrator import endpoint

from . import references, schemas, shapes
from .authentication import ADMIN, OPERATE, READ, caller
from .jobs import Nothing
from .pagination import Paging, page, words
from .parsing import read
from .responses import answer

router = Router(tags=["nodes"])


class Nodes(Paging):
    approval: Annotated[str, Field(max_length=100, description="one or several, with commas")] = ""
    connection: Annotated[str, Field(max_length=100, description="one or several")] = ""


@router.get("/nodes", auth=READ, response=schemas.page_of(schemas.Node))
def list_nodes(request: HttpRequest, paging: Query[Nodes]) -> HttpResponse:
    """All nodes, by name."""
    found = Node.objects.select_related("heartbeat")
    if approvals := words(paging.approval, APPROVAL.states, "approval"):
        found = found.filter(approval__in=approvals)
    if connections := words(paging.connection, CONNECTION.states, "connection"):
        found = found.filter(connection__in=connections)

    def rows(after: list[Any] | None) -> QuerySet[Node]:
        ordered = found.order_by("name")
        return ordered if after is None else ordered.filter(name__gt=after[0])

    return page(request, paging, rows, lambda row: [row.name], shapes.node)


@router.post(
    "/nodes/join-tokens",
    auth=ADMIN,
    response={201: schemas.JoinToken},
    openapi_extra=schemas.body(
        uses={"type": "integer", "minimum": 1, "maximum": 10_000, "default": 1},
        expires_in={"type": "integer", "minimum": 60, "maximum": 30 * 86400, "default": 3600},
        auto_approve={"type": "boolean", "default": False},
        labels={"type": "object", "additionalProperties": {"type": "string"}},
        label={"type": "string", "maxLength": 100},
    ),
)
def create_join_token(request: HttpRequest) -> HttpResponse:
    """Make a token that new nodes trade for a credential; it is shown this once."""
    said = read(request, Invitation)
    token = membership.create_join_token(
        created_by=caller(request).user,
        uses=said.uses,
        expires_in=timedelta(seconds=said.expires_in),
        auto_approve=said.auto_approve,
        labels=said.labels,
        label=said.label,
    )
    return answer({"token": token}, 201, Cache_Control="no-store")


class Joining(msgspec.Struct, forbid_unknown_fields=True):
    token: Annotated[str, Meta(max_length=500)]
    name: Annotated[str, Meta(max_length=500)]
    labels: dict[str, str] = {}
    key: Annotated[str, Meta(max_length=500)] = ""


@router.post(
    "/nodes/enrol",
    auth=None,
    response={201: schemas.Enrolled},
    openapi_extra=schemas.body(
        "token",
        "name",
        token={"type": "string"},
        name={"type": "string"},
        labels={"type": "object", "additionalProperties": {"type": "string"}},
        key={"type": "string", "maxLength": 500},
    ),
)
def enrol(request: HttpRequest) -> HttpResponse:
    """Trade a join token for a credential of the node's own: the token is the permission.

    `key` is a secret that the agent makes itself: with the same token, name and key it may ask
    again when the answer was lost.
    """
    said = read(request, Joining)
    node, credential = membership.enrol(
        said.token,
        said.name,
        said.labels,
        key=said.key,
        address=request.META.get("REMOTE_ADDR") or "",
    )
    return answer(
        {
            "node": node.pk,
            "credential": credential,
            "name": node.name,
            "approval": str(node.approval),
        },
        201,
        Cache_Control="no-store",
    )


@router.get("/nodes/{ref}", auth=READ, response=schemas.Node)
def show_node(request: HttpRequest, ref: str) -> HttpResponse:  # noqa: ARG001 - ninja's first
    """One node, by name, id or the beginning of an id."""
    return answer(shapes.node(references.node(ref)))


@router.post("/nodes/{ref}/approve", auth=OPERATE, response=schemas.Node)
def approve(request: HttpRequest, ref: str) -> HttpResponse:
    """Let the node take part."""
    read(request, Nothing)
    done = endpoint.approve_node(references.node(ref).pk, actor=caller(request).actor)
    return answer(shapes.node(done))


@router.post("/nodes/{ref}/reject", auth=OPERATE, response=schemas.Node)
def reject(request: HttpRequest, ref: str) -> HttpResponse:
    """Give the node no work and no secrets; what runs on it is lost."""
    read(request, Nothing)
    done = endpoint.reject_node(references.node(ref).pk, actor=caller(request).actor)
    return answer(shapes.node(done))


@router.post("/nodes/{ref}/release", auth=OPERATE, response=schemas.Node)
def release(request: HttpRequest, ref: str) -> HttpResponse:
    """End a quarantine: the next agent that connects as this node is the node."""
    read(request, Nothing)
    done = endpoint.release_node(references.node(ref).pk, actor=caller(request).actor)
    return answer(shapes.node(done))


@router.delete("/nodes/{ref}", auth=OPERATE, response=schemas.Node)
def remove(request: HttpRequest, ref: str) -> HttpResponse:
    """Remove the node, unless something runs there.  Its name is free; its history stays."""
    read(request, Nothing)
    found = references.node(ref, removed=True)
    done = endpoint.remove_node(found.pk, actor=caller(request).actor)
    return answer(shapes.node(done))


class Eligible(msgspec.Struct, forbid_unknown_fields=True):
    eligible: bool = True
    reason: Annotated[str, Meta(max_length=500, pattern="^[^\0]*$")] = ""


@router.post(
    "/nodes/{ref}/eligible",
    auth=OPERATE,
    response=schemas.Node,
    openapi_extra=schemas.body(
        eligible={"type": "boolean", "default": True}, reason={"type": "string", "maxLength": 500}
    ),
)
def set_eligible(request: HttpRequest, ref: str) -> HttpResponse:
    """Whether the node may get new work; what it has goes on."""
    said = read(request, Eligible)
    done = endpoint.set_eligible(
        references.node(ref).pk, said.eligible, actor=caller(request).actor, reason=said.reason
    )
    return answer(shapes.node(done))


class Drain(msgspec.Struct, forbid_unknown_fields=True):
    drain: bool = True


@router.post(
    "/nodes/{ref}/drain",
    auth=OPERATE,
    response=schemas.Node,
    openapi_extra=schemas.body(drain={"type": "boolean", "default": True}),
)
def drain(request: HttpRequest, ref: str) -> HttpResponse:
    """Empty the node: no new work; what runs may finish.  `drain: false` ends that."""
    said = read(request, Drain)
    done = endpoint.set_draining(references.node(ref).pk, said.drain, actor=caller(request).actor)
    return answer(shapes.node(done))


class Invitation(msgspec.Struct, forbid_unknown_fields=True):
    """What a join token allows; ``expires_in`` in seconds."""

    uses: Annotated[int, Meta(ge=1, le=10_000)] = 1
    expires_in: Annotated[int, Meta(ge=60, le=30 * 86400)] = 3600
    auto_approve: bool = False
    labels: dict[str, str] = {}
    label: Annotated[str, Meta(max_length=100, pattern="^[^\0]*$")] = ""
