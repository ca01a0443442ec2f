"""The verbs of namespaces: made, and removed when they are empty."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models import ProtectedError

from orchestrator.access import tokens
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
    """Remove a namespace, with the roles, secrets and limits of tokens that name it.

    Raises Conflict while a job is in it.
    """
    if name == DEFAULT:
        raise Conflict(detail=f"the namespace {DEFAULT} is that of all who name none, and stays")
    try:
        with transaction.atomic():
            # First: what is put there at this moment is there then, and goes with it.
            found = Namespace.objects.select_for_update().filter(pk=name).first()
            if found is None:
                raise NotFound(kind="namespace", name=name)
            Namespace.objects.filter(pk=name).delete()
            tokens.forget_namespace(name)
            _record(name, "delete", f"{person(actor)} removes the namespace {name}", actor)
    except (ProtectedError, IntegrityError):  # The second: of a job submitted at this moment.
        raise Conflict(detail=f"the namespace {name} has jobs, and so it stays") from None
    return found


def hold_namespaces(names: Iterable[str]) -> None:
    """Until the transaction ends nobody removes these; raises NotFound for one that is not there.

    Nobody can remove the one of all who name none.
    """
    wanted = sorted(set(names) - {DEFAULT})
    if not wanted:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name FROM orchestrator_namespace WHERE name = ANY(%s)"
            " ORDER BY name FOR KEY SHARE",
            [wanted],
        )
        there = {name for (name,) in cursor.fetchall()}
    for missing in wanted:
        if missing not in there:
            raise NotFound(kind="namespace", name=missing)


def _record(name: str, what: str, sentence: str, actor: str) -> None:
    fact = journal.fact("cluster", f"namespace-{what}", sentence, actor=actor, namespace=name)
    journal.record([fact])
