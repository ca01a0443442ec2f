"""The values of the secrets that executions are to be started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from django.db import connection

from nodes.labels import OWN
from nodes.protocol import secret_references
from orchestrator.explain.errors import NoSecretsKey, SecretUnreadable
from orchestrator.models import sealing

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Found:
    """What the variables of one execution hold, or why it cannot be started, and the cure.

    *elsewhere*: on another node it can.  *unreadable*: the keys were perhaps changed meanwhile.
    """

    values: dict[str, str] = field(default_factory=dict, repr=False)
    lacks: str = ""
    hint: str = ""
    elsewhere: bool = False
    unreadable: bool = False


def find(wanted: Mapping[UUID, Mapping[str, str]]) -> dict[UUID, Found]:
    """For each execution the values of its variables, which are *wanted* by the names of secrets.

    Of its job's namespace alone, and only for an approved node whose agent knows secrets.
    """
    found = _look(wanted)
    again = {execution: wanted[execution] for execution, it in found.items() if it.unreadable}
    return found | _look(again)


def _look(wanted: Mapping[UUID, Mapping[str, str]]) -> dict[UUID, Found]:
    if not wanted:
        return {}
    found = {execution: Found() for execution in wanted}
    opened: dict[str, str] = {}
    for execution, variable, namespace, name, sealed, knows in _rows(wanted):
        it = found[execution]
        if not knows:
            it.lacks = "its node's agent knows no secrets"
            it.hint, it.elsewhere = "Start a newer version of the agent there.", True
        elif sealed is None:
            it.lacks = f"the secret {name}, which {variable} names, is not there any more"
            it.hint = f"`muster secret put {name} -n {namespace}`, then run the job again."
        else:
            try:
                if sealed not in opened:
                    opened[sealed] = sealing.opened(namespace, name, sealed)
                it.values[variable] = opened[sealed]
            except SecretUnreadable as error:
                it.lacks, it.hint, it.unreadable = str(error).rstrip("."), error.hint, True
            except NoSecretsKey as error:  # Where the file lies is no matter of the job's.
                log.error("secrets cannot be used", why=str(error), cure=error.hint)
                it.lacks = "the server cannot use the keys of its secrets"
                it.hint = "Ask who runs the server: its log says why. Then run the job again."
    return found


def _rows(
    wanted: Mapping[UUID, Mapping[str, str]],
) -> list[tuple[UUID, str, str, str, str | None, bool]]:
    asked = [
        (execution, variable, name)
        for execution, names in wanted.items()
        for variable, name in names.items()
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT w.execution, w.variable, j.namespace_id, w.name, s.sealed,
                   n.approval = 'approved' AND coalesce(n.attributes ->> %s, '') = 'true'
            FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS w(execution, variable, name)
            JOIN orchestrator_execution e ON e.id = w.execution
            JOIN orchestrator_job j ON j.id = e.job_id
            JOIN nodes_node n ON n.id = e.node_id
            LEFT JOIN orchestrator_secret s ON s.namespace_id = j.namespace_id AND s.name = w.name
            """,
            [OWN + secret_references.ATTRIBUTE, *(list(it) for it in zip(*asked, strict=True))],
        )
        return list(cursor.fetchall())
