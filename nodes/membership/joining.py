"""Joining: a join token is traded, once, for a credential of the node's own.

Of every secret only the SHA-256 is kept: the secrets are random, so nothing slower is needed,
and whoever reads the database can sign in with nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

import structlog
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import F, Func, Q
from django.db.models.fields import DateTimeField

from nodes import labels as node_labels
from nodes.errors import InvalidName, JoinRefused, NameTaken, Removed, Revoked, TooManyCredentials
from nodes.locks import Lock, lock_rows
from nodes.models import JoinToken, Node, NodeCredential, NodeSession
from nodes.protocol.lifecycle import Approval

log = structlog.get_logger(__name__)

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
#: ``last_used_at`` is for people to look at: it need not be exact.
_USE_IS_NOTED_EVERY = timedelta(hours=1)
#: How long after its end a token still answers who had joined with it and heard nothing of it.
_REPEATED_FOR = timedelta(days=1)
#: No request is under way for longer: a credential this old and never used reached nobody.
_LOST_AFTER = timedelta(minutes=1)

#: How long a credential that was made to take over may wait for its first use.
_UNUSED_FOR = timedelta(days=1)
#: Of one node, at once; it needs one.
MOST_UNUSED = 5


class Clock(Func):
    """The database's clock, also within a transaction."""

    function = "clock_timestamp"
    output_field = DateTimeField()


def create_join_token(
    *,
    created_by: User | None,
    uses: int = 1,
    expires_in: timedelta = timedelta(hours=1),
    auto_approve: bool = False,
    labels: Mapping[str, str] | None = None,
    label: str = "",
) -> str:
    """Make a token that lets *uses* nodes join, and return it: it is never shown again.

    *labels* are given to every node that joins with it.
    """
    token = _secret("jt")
    JoinToken.objects.create(
        digest=digest(token),
        label=label,
        auto_approve=auto_approve,
        labels=node_labels.given(labels or {}),
        uses_left=uses,
        expires_at=Clock() + expires_in,
        created_by=created_by,
    )
    log.info("join token made", uses=uses, auto_approve=auto_approve, label=label)
    return token


def renew_join_token(token: str, *, uses: int, expires_in: timedelta) -> bool:
    """Let *uses* more nodes join with *token*; whether there is such a token, not revoked.

    Unlike a new one it still answers who had asked with it and heard nothing.
    """
    unrevoked = JoinToken.objects.filter(digest=digest(token), revoked_at__isnull=True)
    return bool(unrevoked.update(uses_left=uses, expires_at=Clock() + expires_in))


def revoke_join_token(token: UUID) -> bool:
    """Let nobody join with it any longer; whether that changed anything."""
    unrevoked = JoinToken.objects.filter(pk=token, revoked_at__isnull=True)
    return bool(unrevoked.update(revoked_at=Clock()))


def enrol(
    token: str,
    name: str,
    labels: Mapping[str, str] | None = None,
    *,
    key: str = "",
    address: str = "",
) -> tuple[Node, str]:
    """Trade a use of *token* for a new node and its credential, which is never shown again.

    A refused attempt uses nothing up.  An existing node is never overwritten.  *key* is a secret
    of the agent's own: with it the same question may be asked again when its answer was lost,
    until a credential has been used; it uses nothing more up.  *labels* are what the node says
    of itself; those of the token are given to it.
    """
    token, name = token.strip(), name.strip().lower()
    if not NAME.fullmatch(name):
        raise InvalidName(name=name[:100])
    own = node_labels.own(labels or {})
    try:
        with transaction.atomic():
            join = _use(token)
            approval = Approval.APPROVED if join.auto_approve else Approval.PENDING
            node = Node.objects.create(
                name=name,
                approval=approval.value,
                labels=join.labels,
                attributes=own,
                enrolled_from=address[:64],
                enrolment=_enrolment(token, key),
            )
            NodeSession.objects.create(node=node)
            credential = _new_credential(node)
    except (JoinRefused, IntegrityError) as error:
        repeated = _repeat(token, name, key)
        if repeated is not None:
            return repeated
        log.warning("join refused", name=name, address=address, why=type(error).__name__)
        if isinstance(error, JoinRefused):
            raise
        raise NameTaken(name=name) from None
    log.info("node joined", node=str(node.pk), name=name, address=address, approval=approval)
    return node, credential


def authenticate(credential: str) -> Node | None:
    """The node that signs in with *credential*; None when it may not.

    The first use of a credential ends all others of its node.  Raises Removed for one that a
    node had which was removed.
    """
    found = (
        NodeCredential.objects.filter(digest=digest(credential), revoked_at__isnull=True)
        .exclude(node__approval=Approval.REJECTED.value)
        .select_related("node")
        .annotate(
            is_recent=Q(last_used_at__gt=Clock() - _USE_IS_NOTED_EVERY),
            is_old=Q(created_at__lt=Clock() - _UNUSED_FOR),
        )
        .first()
    )
    if found is not None and found.last_used_at is None and found.is_old and _has_another(found):
        return None  # It was made to take over, and has not.
    if found is None:
        _raise_if_removed(credential)
        return None
    if not found.is_recent:
        _note_use(found)
    return found.node


def rotate(credential: str) -> str:
    """A new credential beside this one, which is good until the new one is first used.

    Asked again, because the answer was lost, there is one more.  One that is not used within a
    day is good for nothing, and this one stays.
    """
    node = authenticate(credential)
    if node is None:
        raise Revoked
    with transaction.atomic():
        lock_rows(Lock.NODES, [node.pk], "id")
        unused = node.credentials.filter(last_used_at__isnull=True, revoked_at__isnull=True)
        unused.filter(created_at__lt=Clock() - _LOST_AFTER).delete()
        if unused.count() >= MOST_UNUSED:
            raise TooManyCredentials
        log.info("credential made to take over", node=str(node.pk))
        return _new_credential(node)


def revoke(node: UUID) -> int:
    """End every credential of *node*, and the session it has; how many there were."""
    with transaction.atomic():
        end_session(node)
        revoked = NodeCredential.objects.filter(node_id=node, revoked_at__isnull=True).update(
            revoked_at=Clock()
        )
    log.info("credentials revoked", node=str(node), count=revoked)
    return revoked


def end_session(node: UUID) -> None:
    """Fence whatever link *node* has: nothing more that it says is written.

    Takes the session's lock; its web process closes the link at the next word from it.
    """
    NodeSession.objects.filter(node_id=node).update(epoch=F("epoch") + 1, received=0)


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _secret(kind: str) -> str:
    """A random secret; its middle part may be shown in logs, to tell one from another."""
    return f"{kind}_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"


def _use(token: str) -> JoinToken:
    valid = Q(uses_left__gt=0, expires_at__gt=Clock(), revoked_at__isnull=True)
    mine = JoinToken.objects.filter(digest=digest(token))
    if not mine.filter(valid).update(uses_left=F("uses_left") - 1):
        raise JoinRefused
    return mine.get()


def _enrolment(token: str, key: str) -> str:
    return digest(f"{token}\0{key}") if key else ""


def _repeat(token: str, name: str, key: str) -> tuple[Node, str] | None:
    """The node that this very enrolment has made, with one more credential; None if it made none.

    Those given before stay good for a while: of several answers under way, any may be the one
    that arrives, and its first use ends the others.
    """
    if not key:
        return None
    unrevoked = JoinToken.objects.filter(digest=digest(token), revoked_at__isnull=True)
    with transaction.atomic():
        mine = Node.objects.filter(name=name, enrolment=_enrolment(token, key))
        lock_rows(Lock.NODES, mine.values_list("pk", flat=True), "id")
        node = mine.first()
        if node is None or not unrevoked.filter(expires_at__gt=Clock() - _REPEATED_FOR).exists():
            return None
        if node.credentials.filter(last_used_at__isnull=False).exists():
            return None
        lost = node.credentials.filter(created_at__lt=Clock() - _LOST_AFTER)
        lost.filter(last_used_at__isnull=True).delete()
        credential = _new_credential(node)
    log.info("node joined again: an answer was lost", node=str(node.pk), name=name)
    return node, credential


def _raise_if_removed(credential: str) -> None:
    of_removed = NodeCredential.objects.filter(
        digest=digest(credential), node__removed_at__isnull=False
    )
    name = of_removed.values_list("node__name", flat=True).first()
    if name is not None:
        raise Removed(name=name)


def _new_credential(node: Node) -> str:
    credential = _secret("nt")
    NodeCredential.objects.create(node=node, digest=digest(credential))
    return credential


def _has_another(credential: NodeCredential) -> bool:
    others = NodeCredential.objects.filter(node_id=credential.node_id, revoked_at__isnull=True)
    return others.filter(last_used_at__isnull=False).exists()


def _note_use(credential: NodeCredential) -> None:
    if credential.last_used_at is None:
        others = NodeCredential.objects.filter(node_id=credential.node_id).exclude(pk=credential.pk)
        others.filter(revoked_at__isnull=True).update(revoked_at=Clock())
    NodeCredential.objects.filter(pk=credential.pk).update(last_used_at=Clock())
