"""The verbs of secrets: put and deleted, named by jobs, and never told to anybody but a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from django.contrib.postgres.fields import ArrayField
from django.db import IntegrityError, models, transaction
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now

from nodes.protocol.secret_references import PREFIX
from orchestrator.explain.errors import InvalidSecret, NotFound, SecretThere, SecretUnreadable
from orchestrator.explain.formatting import person
from orchestrator.models import Secret, journal, sealing
from orchestrator.models.access import DEFAULT
from orchestrator.spec import NAME, JobSpec
from orchestrator.spec.mistakes import UNSUPPORTED, Mistake, mistake
from orchestrator.spec.secrets import LONGEST, SHORTEST

from .namespaces import hold_namespaces

USERS = 10
"""Jobs that are named as users of a secret, at most."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What came of putting a value.  When not ``changed``, it had that value already."""

    secret: Secret
    created: bool
    changed: bool


def put_secret(
    namespace: str, name: str, value: str, *, actor: str, create_only: bool = False
) -> Kept:
    """Keep *value* as the secret *name*; what begins from now on gets it.

    Raises InvalidSecret, which does not show the value, NoSecretsKey, and NotFound for a namespace
    that is not there; with *create_only* SecretThere.
    """
    _check(name, value)
    with transaction.atomic():
        hold_namespaces([namespace])
        sealing.hold_keys()
        sealed = sealing.seal(namespace, name, value)
        try:
            with transaction.atomic():
                row = Secret.objects.create(
                    namespace_id=namespace,
                    name=name,
                    sealed=sealed,
                    created_by=actor,
                    updated_by=actor,
                )
            created = changed = True
        except IntegrityError:
            rows = Secret.objects.select_for_update()
            row = rows.get(namespace_id=namespace, name=name)
            if create_only:
                raise SecretThere(name=name) from None
            created, changed = False, not _is(row, value)
        if changed and not created:
            row.sealed, row.version, row.updated_by = sealed, row.version + 1, actor
            row.updated_at = Now()
            row.save(update_fields=["sealed", "version", "updated_by", "updated_at"])
        if changed:
            _record(row, "put", f"{person(actor)} puts the secret {name}", actor)
    return Kept(with_users(Secret.objects.filter(pk=row.pk)).get(), created, changed)


def delete_secret(namespace: str, name: str, *, actor: str) -> Secret:
    """Forget a secret.  What runs keeps it; what still waits for it cannot be started."""
    with transaction.atomic():
        rows = Secret.objects.filter(namespace_id=namespace, name=name)
        row = with_users(rows).first() if "\0" not in name else None
        if row is None or not rows.delete()[0]:
            raise NotFound(kind="secret", name=name[:100])
        _record(row, "delete", f"{person(actor)} deletes the secret {name}", actor)
    return row


def with_users(secrets: models.QuerySet[Secret]) -> models.QuerySet[Secret]:
    """*secrets*, each with ``used_by``: up to USERS jobs that have not ended and name it."""
    users = RawSQL(
        # The condition on the text is that of an index.
        """
        ARRAY(
            SELECT j.name FROM orchestrator_jobversion v
            JOIN orchestrator_job j ON j.id = v.job_id AND j.version = v.number
            WHERE (v.spec -> 'task' -> 'env')::text LIKE '%%: "secret://%%'
            AND j.ended_at IS NULL AND j.namespace_id = orchestrator_secret.namespace_id
            AND EXISTS (
                SELECT FROM jsonb_each_text(v.spec -> 'task' -> 'env') one
                WHERE one.value = 'secret://' || orchestrator_secret.name)
            ORDER BY j.name LIMIT %s)
        """,
        [USERS],
        output_field=ArrayField(models.TextField()),
    )
    return secrets.annotate(used_by=users)


def missing(specs: Sequence[JobSpec]) -> list[list[Mistake]]:
    """What is wrong with each of *specs*: secrets that its namespace has not."""
    wanted = {it.namespace or DEFAULT for it in specs if it.task.secrets}
    there: dict[str, set[str]] = {namespace: set() for namespace in wanted}
    rows = Secret.objects.filter(namespace__in=wanted) if wanted else Secret.objects.none()
    for namespace, name in rows.values_list("namespace_id", "name"):
        there[namespace].add(name)
    return [
        [
            _missing(variable, name, it.namespace or DEFAULT, there[it.namespace or DEFAULT])
            for variable, name in it.task.secrets.items()
            if name not in there[it.namespace or DEFAULT]
        ]
        for it in specs
    ]


def _missing(variable: str, name: str, namespace: str, there: set[str]) -> Mistake:
    near = get_close_matches(name, sorted(there), n=1)
    make = f"`muster secret put {name} -n {namespace}` makes it."
    return mistake(
        f"task.env.{variable}",
        f"names the secret {name!r}, which the namespace {namespace} has not",
        f"Did you mean {PREFIX + near[0]}?" if near else make,
    )


def _check(name: str, value: str) -> None:
    if NAME.fullmatch(name) is None:
        what = "cannot be the name of a secret"
        do = (
            "Use 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or digit"
        )
        raise InvalidSecret(name=name[:100], what=what, do=do)
    if not SHORTEST <= len(value) <= LONGEST:
        what = f"has {len(value)} characters, and may have {SHORTEST} to {LONGEST}"
        do = (
            "What is so short cannot be told from ordinary output, and so not masked there"
            if len(value) < SHORTEST
            else "Put large data into files that the task fetches with a secret"
        )
        raise InvalidSecret(name=name, what=what, do=do)
    if found := UNSUPPORTED.search(value):
        what = f"contains the unsupported character U+{ord(found[0]):04X}"
        raise InvalidSecret(name=name, what=what, do="Encode it, for example in base64")


def _is(row: Secret, value: str) -> bool:
    """Whether *row* has that value, as far as anybody can tell."""
    try:
        return sealing.opened(row.namespace_id, row.name, row.sealed) == value
    except SecretUnreadable:
        return False


def _record(row: Secret, what: str, sentence: str, actor: str) -> None:
    fact = journal.fact(
        "cluster",
        f"secret-{what}",
        f"{sentence}, version {row.version}",
        actor=actor,
        namespace=row.namespace_id,
        secret=row.name,
    )
    journal.record([fact])
