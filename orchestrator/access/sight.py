"""What somebody may see of a table.  Whatever is left out is as if it were not there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from django.db.models import Model, QuerySet

from orchestrator.explain.errors import NotFound
from orchestrator.models import (
    BlockedJob,
    BrokerDue,
    BrokerRow,
    BrokerTrigger,
    Evaluation,
    Event,
    Execution,
    Job,
    JobVersion,
    Namespace,
    Secret,
    journal,
)
from orchestrator.models.access import DEFAULT

from .roles import Rights

M = TypeVar("M", bound=Model)

ALL = "*"
"""In place of a name: all namespaces that one may see."""

_NAMESPACE: dict[type[Model], str] = {
    Job: "namespace",
    JobVersion: "job__namespace",
    Execution: "job__namespace",
    Evaluation: "job__namespace",
    BlockedJob: "job__namespace",
    BrokerDue: "job__namespace",
    BrokerRow: "job__namespace",
    BrokerTrigger: "namespace",
    Namespace: "pk",
    Secret: "namespace",
}


@dataclass(frozen=True, slots=True)
class Sight:
    """The namespaces that are looked at, None for all; with or without what is the *cluster*'s."""

    names: frozenset[str] | None = None
    cluster: bool = True

    def of(self, rows: QuerySet[M]) -> QuerySet[M]:
        """Those of *rows* that are seen."""
        if self.names is None:
            return rows
        if rows.model is Event:
            return rows.filter(journal.of_namespaces(self.names, cluster=self.cluster))
        return rows.filter(**{f"{_NAMESPACE[rows.model]}__in": sorted(self.names)})


def visible(rights: Rights, rows: QuerySet[M]) -> QuerySet[M]:
    """Those of *rows* that somebody with *rights* may see."""
    return Sight(rights.namespaces).of(rows)


def sight(rights: Rights, namespace: str) -> Sight:
    """One namespace, or with `*` all that may be seen.

    Raises NotFound, in the same way, for one that is not there and for one that may not be seen.
    """
    if namespace == ALL:
        return Sight(rights.namespaces)
    return Sight(frozenset({existing_namespace(rights, namespace)}), cluster=False)


def existing_namespace(rights: Rights, name: str) -> str:
    """*name*, which is that of a namespace that may be seen; raises NotFound."""
    seen = rights.namespaces
    is_seen = seen is None or name in seen
    # Roles go with their namespace; a token may name one that is no more.
    is_sure = name == DEFAULT or (seen is not None and not rights.only)
    if not (is_seen and (is_sure or _exists(name))):
        raise NotFound(kind="namespace", name=name[:100])
    return name


def _exists(name: str) -> bool:
    return "\0" not in name and Namespace.objects.filter(pk=name).exists()
