"""Secrets: put, listed by name, deleted.  No answer has a value."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Router

from orchestrator import access, endpoint
from orchestrator.models import Secret
from orchestrator.models.access import DEFAULT

from . import references, schemas
from .authentication import READ, SECRETS, caller
from .operations import operation
from .pagination import page_by
from .preconditions import creates_only
from .responses import answer

router = Router(tags=["secrets"])


@router.get("/secrets", auth=READ)
@operation(schemas.Page[schemas.Secret])
def list_secrets(request: HttpRequest, query: schemas.PagingInNamespace) -> HttpResponse:
    """The secrets that jobs may name, without their values: who put them, when, who uses them."""
    found = caller(request).sight(query.namespace).of(endpoint.with_users(Secret.objects.all()))
    return page_by("pk", request, query, found, schemas.Secret.of)


@router.put("/secrets/{name}", auth=SECRETS)
@operation(
    {200: schemas.KeptSecret, 201: schemas.KeptSecret},
    conditions=("If-None-Match",),
    problems={409},
)
def put_secret(
    request: HttpRequest, name: str, body: schemas.SecretValue, query: schemas.InNamespace
) -> HttpResponse:
    """Keep a value for jobs of the namespace, which name it `secret://NAME` in a variable.

    201 for a new secret, otherwise 200; the same value again changes nothing.  Nobody can read it
    again.  What begins from now on gets it, what runs keeps what it has.  `If-None-Match: *`
    creates only.
    """
    who, namespace = caller(request), _permitted(request, query)
    create_only = creates_only(request)
    kept = endpoint.put_secret(
        namespace, name, body.value, actor=who.actor, create_only=create_only
    )
    shown = schemas.KeptSecret.of(kept.secret, created=kept.created, changed=kept.changed)
    return answer(shown, 201 if kept.created else 200)


@router.delete("/secrets/{name}", auth=SECRETS)
@operation(schemas.Secret)
def delete_secret(request: HttpRequest, name: str, query: schemas.InNamespace) -> HttpResponse:
    """Forget a secret.  What runs keeps it; what still waits for it cannot be started."""
    namespace = _permitted(request, query)
    gone = endpoint.delete_secret(namespace, name, actor=caller(request).actor)
    return answer(schemas.Secret.of(gone))


def _permitted(request: HttpRequest, query: schemas.InNamespace) -> str:
    """The namespace that is meant, in which the caller may change secrets."""
    rights = caller(request).rights
    asked = references.one_namespace(query.namespace, "a secret is of one")
    namespace = access.existing_namespace(rights, asked or DEFAULT)
    access.require(rights, "secrets", namespace)
    return namespace
