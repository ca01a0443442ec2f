"""Nodes: listed, judged, drained; and how a new one joins."""

from __future__ import annotations

from datetime import timedelta

from django.http import HttpRequest, HttpResponse
from ninja import Router

from nodes import membership
from nodes.errors import Revoked
from nodes.models import Node
from orchestrator import endpoint

from . import references, schemas, serializers
from .authentication import JOIN_TOKENS, OPERATE_NODES, READ, caller
from .operations import operation
from .pagination import page_by
from .problems import unauthenticated
from .responses import answer

router = Router(tags=["nodes"])


@router.get("/nodes", auth=READ)
@operation(schemas.Page[schemas.Node])
def list_nodes(request: HttpRequest, query: schemas.Nodes) -> HttpResponse:
    """All nodes, by name."""
    found = endpoint.counted_running(Node.objects.select_related("heartbeat"))
    if query.approval:
        found = found.filter(approval__in=query.approval)
    if query.connection:
        found = found.filter(connection__in=query.connection)
    return page_by("name", request, query, found, serializers.node)


@router.post("/nodes/join-tokens", auth=JOIN_TOKENS)
@operation({201: schemas.JoinToken})
def create_join_token(request: HttpRequest, body: schemas.NewJoinToken) -> HttpResponse:
    """Make a token that new nodes trade for a credential; it is shown this once."""
    token = membership.create_join_token(
        created_by=caller(request).user,
        uses=body.uses,
        expires_in=timedelta(seconds=body.expires_in),
        auto_approve=body.auto_approve,
        labels=body.labels,
        label=body.label,
    )
    return answer(schemas.JoinToken(token=token), 201, Cache_Control="no-store")


@router.post("/nodes/enrol", auth=None)
@operation({201: schemas.Enrolled}, problems={401})
def enrol(request: HttpRequest, body: schemas.Enrolment) -> HttpResponse:
    """Trade a join token for a credential of the node's own: the token is the permission.

    `key` is a secret that the agent makes itself: with the same token, name and key it may ask
    again when the answer was lost.
    """
    node, credential = membership.enrol(
        body.token,
        body.name,
        body.labels,
        key=body.key,
        address=request.META.get("REMOTE_ADDR") or "",
    )
    made = schemas.Enrolled.of(node, node=node.pk, credential=credential)
    return answer(made, 201, Cache_Control="no-store")


@router.post("/nodes/credentials", auth=None)
@operation({201: schemas.Credential}, problems={401, 403, 410, 429})
def new_credential(request: HttpRequest) -> HttpResponse:
    """Make a credential to take over from the node's own, with `Authorization: Node nt_…`.

    Both are good until the new one is first used; when that is not within a day, it is void.
    """
    made = membership.rotate(_node_credential(request))
    return answer(schemas.Credential(credential=made), 201, Cache_Control="no-store")


@router.post("/nodes/credentials/use", auth=None)
@operation(schemas.Myself, problems={401, 403, 410})
def use_credential(request: HttpRequest) -> HttpResponse:
    """Whose credential `Authorization: Node nt_…` is; its first use ends the others of the node."""
    node = membership.authenticate(_node_credential(request))
    if node is None:
        raise Revoked
    return answer(schemas.Myself.of(node, node=node.pk))


def _node_credential(request: HttpRequest) -> str:
    scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "node" or not credential.strip():
        raise unauthenticated(hint="Send `Authorization: Node nt_…`: this is for agents.")
    return credential.strip()


@router.get("/nodes/{ref}", auth=READ)
@operation(schemas.Node)
def show_node(request: HttpRequest, ref: str) -> HttpResponse:  # noqa: ARG001 - ninja's first
    """One node, by name, id or the beginning of an id."""
    return answer(serializers.node(references.node(ref)))


@router.post("/nodes/{ref}/approve", auth=OPERATE_NODES)
@operation(schemas.Node)
def approve(request: HttpRequest, ref: str, body: schemas.Approve) -> HttpResponse:
    """Let the node take part, with these labels beside those that it has."""
    done = endpoint.approve_node(
        references.node(ref).pk, actor=caller(request).actor, labels=body.labels
    )
    return answer(serializers.node(done))


@router.post("/nodes/{ref}/reject", auth=OPERATE_NODES)
@operation(schemas.Node)
def reject(request: HttpRequest, ref: str) -> HttpResponse:
    """Give the node no work and no secrets; what runs on it is lost."""
    done = endpoint.reject_node(references.node(ref).pk, actor=caller(request).actor)
    return answer(serializers.node(done))


@router.post("/nodes/{ref}/release", auth=OPERATE_NODES)
@operation(schemas.Node)
def release(request: HttpRequest, ref: str) -> HttpResponse:
    """End a quarantine: the next agent that connects as this node is the node."""
    done = endpoint.release_node(references.node(ref).pk, actor=caller(request).actor)
    return answer(serializers.node(done))


@router.delete("/nodes/{ref}", auth=OPERATE_NODES)
@operation(schemas.Node)
def remove(request: HttpRequest, ref: str) -> HttpResponse:
    """Remove the node, unless something runs there.  Its name is free; its history stays.

    It must be named in full, by name or id: this cannot be taken back.
    """
    found = references.node(ref, removed=True, whole=True)
    done = endpoint.remove_node(found.pk, actor=caller(request).actor)
    return answer(serializers.node(done))


@router.post("/nodes/{ref}/labels", auth=OPERATE_NODES)
@operation(schemas.Node)
def label(request: HttpRequest, ref: str, body: schemas.Labels) -> HttpResponse:
    """Give the node labels, or take them away; what runs there goes on."""
    done = endpoint.label_node(references.node(ref).pk, body.labels, actor=caller(request).actor)
    return answer(serializers.node(done))


@router.post("/nodes/{ref}/eligible", auth=OPERATE_NODES)
@operation(schemas.Node)
def set_eligible(request: HttpRequest, ref: str, body: schemas.Eligible) -> HttpResponse:
    """Whether the node may get new work; what it has goes on."""
    done = endpoint.set_eligible(
        references.node(ref).pk, body.eligible, actor=caller(request).actor, reason=body.reason
    )
    return answer(serializers.node(done))


@router.post("/nodes/{ref}/drain", auth=OPERATE_NODES)
@operation(schemas.Node)
def drain(request: HttpRequest, ref: str, body: schemas.Drain) -> HttpResponse:
    """Empty the node: no new work; what runs may finish.  `drain: false` ends that."""
    done = endpoint.set_draining(references.node(ref).pk, body.drain, actor=caller(request).actor)
    return answer(serializers.node(done))
