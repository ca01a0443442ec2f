"""What time alone causes.  Every part may run twice, late, or not at all without harm."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from nodes import membership
from nodes.hints import Hint, after_commit
from nodes.models import JoinToken, Node
from orchestrator import endpoint
from orchestrator.access import sessions, sign_in
from orchestrator.models import IdempotencyKey, journal
from orchestrator.models.pruning import delete_some

#: How long the answer to a request is kept for its repeats.
ANSWERS_KEPT = timedelta(hours=24)

#: How long a join token is kept after its end: who had joined with it and heard nothing may still
#: ask, once the cluster of a machine has renewed it.
TOKENS_KEPT = timedelta(days=30)


def tick() -> None:
    """Once a second, in one process at a time: notice silent nodes, forget what is over."""
    notice_silence()
    forget_answers()
    sessions.forget_expired()
    sign_in.forget_old()


def notice_silence() -> None:
    """Nodes not heard of are disconnected, then lost; what ran on a lost one is lost too."""
    mark_silent()
    endpoint.lose_silent()


def mark_silent() -> None:
    """Nodes not heard of are disconnected, then lost, and the journal says so."""
    with transaction.atomic():
        silence = membership.detect_silence()
        _record(silence.disconnected, silence.lost)


def _record(disconnected: Sequence[UUID], lost: Sequence[UUID]) -> None:
    if not (disconnected or lost):
        return
    names = dict(Node.objects.filter(pk__in=[*disconnected, *lost]).values_list("pk", "name"))
    journal.record(
        journal.fact("node", what, f"{names.get(node, node)} is {what}", node=node)
        for what, nodes in (("disconnected", disconnected), ("lost", lost))
        for node in nodes
    )
    after_commit(Hint.VIEW)


def forget_answers() -> None:
    """Drop answers that no repeat can ask for any longer, a bounded number at a time."""
    delete_some(IdempotencyKey.objects.filter(created_at__lt=Now() - ANSWERS_KEPT))


def forget_join_tokens() -> None:
    """Drop join tokens that are over, used up or not, a bounded number at a time."""
    delete_some(JoinToken.objects.filter(expires_at__lt=Now() - TOKENS_KEPT))
