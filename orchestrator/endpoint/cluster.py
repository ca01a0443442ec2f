"""The verbs of the whole cluster: how jobs are placed."""

from __future__ import annotations

from django.db import transaction

from orchestrator.explain.errors import Conflict
from orchestrator.explain.formatting import person
from orchestrator.models import ClusterSetting, journal


def set_algorithm(algorithm: str, *, actor: str) -> None:
    """Whether placement fills nodes (``binpack``) or spreads over them (``spread``).

    It counts for what is placed from now on; raises Conflict for any other word.
    """
    if algorithm not in ("binpack", "spread"):
        raise Conflict(detail=f"{algorithm!r} is no way to place: say binpack or spread")
    with transaction.atomic():
        ClusterSetting.objects.filter(pk=1).update(algorithm=algorithm)
        sentence = f"{person(actor)} sets placement to {algorithm}"
        journal.record([journal.fact("cluster", "algorithm", sentence, actor=actor)])
