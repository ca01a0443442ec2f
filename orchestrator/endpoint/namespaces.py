"""The verbs of namespaces: made, and removed when they are empty."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from orchestrator.explain.errors import Conflict, NotFound
from orchestrator.explain.formatting import person
from orchestrator.models import Namespace, journal
from orchestrator.models.access import DEFAULT


def create_namespace(
    name: str, description: str = "", *, actor: str, user: User | None = None
) -> Namespace:
    """Make a namespace; raises Conflict if it is there."""
    with transaction.atomic():
        made, is_new = Namespace.objects.get_or_create(
            pk=name, defaults={"description": description, "created_by": user}
        )
        if not is_new:
            raise Conflict(detail=f"there is a namespace {name} already")
        _record(name, "create", f"{person(actor)} makes the namespace {name}", actor)
    made.refresh_from_db()
    return made


def delete_namespace(name: str, *, actor: str) -> Namespace:
    """Remove a namespace, with the roles in it; raises Conflict while a job is in it."""
    if name == DEFAULT:
        raise Conflict(detail=f"the namespace {DEFAULT} is that of all who name none, and stays")
    found = Namespace.objects.filter(pk=name).first()
    if found is None:
        raise NotFound(kind="namespace", name=name)
    try:
        with transaction.atomic():
            Namespace.objects.filter(pk=name).delete()
            _record(name, "delete", f"{person(actor)} removes the namespace {name}", actor)
    except (ProtectedError, IntegrityError):  # The second: of a job submitted at this moment.
        raise Conflict(detail=f"the namespace {name} has jobs, and so it stays") from None
    return found


def _record(name: str, what: str, sentence: str, actor: str) -> None:
    fact = journal.fact("cluster", f"namespace-{what}", sentence, actor=actor, namespace=name)
    journal.record([fact])
