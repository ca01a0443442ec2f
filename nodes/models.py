"""Nodes, what they offer, how they sign in, and when they were last heard of."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.contrib.auth.models import User
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from nodes.protocol.lifecycle import APPROVAL, CONNECTION, Approval, Connection
from nodes.protocol.resources import DIMENSIONS, Resources

from . import triggers


def known(lifecycle_states: tuple[str, ...]) -> list[str]:
    """Plain sorted strings: enum members would tie every migration to the live table."""
    return sorted(str(state) for state in lifecycle_states)


class Xid8Field(models.Field):  # type: ignore[type-arg]  # not generic at run time
    """The transaction that wrote a row: with it a reader knows what it may not have seen yet."""

    def db_type(self, connection: Any) -> str:
        return "xid8"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> int | None:
        return None if value is None else int(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return str(value) if isinstance(value, int) else value

    def get_placeholder(self, value: Any, compiler: Any, connection: Any) -> str:
        return "%s" if hasattr(value, "as_sql") else "%s::xid8"


class CurrentXid(models.Func):
    template = "pg_current_xact_id()"
    output_field = Xid8Field()


NOTHING_SEEN = "1:1:"
"""The snapshot, as the database writes it, of which nothing was visible that ``changed``."""

UNSEEN = """
    (nodes_node.changed >= pg_snapshot_xmax(%(seen)s::pg_snapshot)
     OR nodes_node.changed = ANY (ARRAY(SELECT pg_snapshot_xip(%(seen)s::pg_snapshot))))
"""
"""Nodes whose last change could not be seen in a snapshot.

It is said by what the index is looked up with: from the oldest transaction on that was open, a
stranger's perhaps, lie all versions of all nodes.
"""


class PresentNodes(models.Manager["Node"]):
    """All nodes but those that were removed."""

    def get_queryset(self) -> models.QuerySet[Node]:
        return super().get_queryset().filter(removed_at__isnull=True)


class Node(models.Model):
    """A machine that offers resources.

    A removed node keeps its row, for what ran there; ``objects`` leaves it out, its name is free,
    and its executions find it all the same.

    ``capacity_*`` is what may be allocated: what the node advertises, but no more than was
    approved, or what is allocated on it already when it has shrunk below that.  ``approved_*`` is
    what it had advertised when an operator last approved it; null before the two have met.
    ``allocated_*`` is the sum over executions that hold
    a reservation.  ``order_rev`` numbers the orders to this node; the row is locked whenever an
    execution on it is planned, so the numbers are consecutive.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=63)
    approval = models.CharField(
        max_length=16,
        choices=[(s.value, s.value) for s in Approval],
        default=APPROVAL.initial.value,
    )
    connection = models.CharField(
        max_length=16,
        choices=[(s.value, s.value) for s in Connection],
        default=CONNECTION.initial.value,
    )
    connection_since = models.DateTimeField(db_default=Now())
    eligible = models.BooleanField(default=True)
    draining = models.BooleanField(default=False)
    quarantined = models.CharField(max_length=200, blank=True, default="")
    #: Why it takes no new work, in its agent's own words; empty when it does.
    degraded = models.CharField(max_length=200, blank=True, default="")
    labels = models.JSONField(default=dict, blank=True)
    attributes = models.JSONField(default=dict, blank=True)
    enrolled_from = models.CharField(max_length=64, blank=True, default="")
    #: SHA-256 of the join token and the agent's own key: who asks with both again is the node.
    enrolment = models.CharField(max_length=64, blank=True, default="", editable=False)
    removed_at = models.DateTimeField(null=True, blank=True)

    capacity_cpu = models.BigIntegerField(default=0)
    capacity_memory = models.BigIntegerField(default=0)
    capacity_disk = models.BigIntegerField(default=0)
    capacity_gpu = models.BigIntegerField(default=0)
    advertised_cpu = models.BigIntegerField(default=0)
    advertised_memory = models.BigIntegerField(default=0)
    advertised_disk = models.BigIntegerField(default=0)
    advertised_gpu = models.BigIntegerField(default=0)
    approved_cpu = models.BigIntegerField(null=True)
    approved_memory = models.BigIntegerField(null=True)
    approved_disk = models.BigIntegerField(null=True)
    approved_gpu = models.BigIntegerField(null=True)
    allocated_cpu = models.BigIntegerField(default=0)
    allocated_memory = models.BigIntegerField(default=0)
    allocated_disk = models.BigIntegerField(default=0)
    allocated_gpu = models.BigIntegerField(default=0)

    order_rev = models.BigIntegerField(default=0)
    rev = models.BigIntegerField(default=1, editable=False)
    changed = Xid8Field(db_default=CurrentXid(), editable=False)
    created_at = models.DateTimeField(db_default=Now())

    objects = PresentNodes()
    every: ClassVar[models.Manager[Node]] = models.Manager()

    class Meta:
        triggers = triggers.node_triggers()
        indexes = [models.Index(fields=["changed"], name="node_changed")]
        constraints = [
            models.UniqueConstraint(
                fields=["name"],
                condition=Q(removed_at__isnull=True),
                name="node_name_is_unique",
                violation_error_message="there is a node of this name already",
            ),
            models.CheckConstraint(
                name="node_approval_is_known", condition=Q(approval__in=known(APPROVAL.states))
            ),
            models.CheckConstraint(
                name="node_connection_is_known",
                condition=Q(connection__in=known(CONNECTION.states)),
            ),
            *(
                models.CheckConstraint(
                    name=f"node_{dimension}_is_not_overcommitted",
                    condition=Q(**{f"allocated_{dimension}__gte": 0})
                    & Q(**{f"allocated_{dimension}__lte": F(f"capacity_{dimension}")}),
                    violation_error_message=f"more {dimension} allocated than the node has",
                )
                for dimension in ("cpu", "memory", "disk", "gpu")
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def capacity(self) -> Resources:
        return Resources(
            self.capacity_cpu, self.capacity_memory, self.capacity_disk, self.capacity_gpu
        )

    @property
    def advertised(self) -> Resources:
        return Resources(
            self.advertised_cpu, self.advertised_memory, self.advertised_disk, self.advertised_gpu
        )

    @property
    def allocated(self) -> Resources:
        return Resources(
            self.allocated_cpu, self.allocated_memory, self.allocated_disk, self.allocated_gpu
        )

    @property
    def growth(self) -> dict[str, int]:
        """What it offers now of each dimension of which it offers more than was approved."""
        return {
            it: advertised
            for it in DIMENSIONS
            if (approved := getattr(self, f"approved_{it}")) is not None
            and (advertised := getattr(self, f"advertised_{it}")) > approved
        }


class NodeSession(models.Model):
    """The newest session of a node: the fence for everything that it says.  Hot and narrow."""

    node = models.OneToOneField(
        Node, on_delete=models.CASCADE, primary_key=True, related_name="session"
    )
    epoch = models.BigIntegerField(default=0)
    received = models.BigIntegerField(default=0)
    instance = models.CharField(max_length=128, blank=True, default="")
    ledger = models.CharField(max_length=128, blank=True, default="")
    run = models.BigIntegerField(default=0)
    boot = models.CharField(max_length=128, blank=True, default="")
    holder = models.CharField(max_length=128, blank=True, default="")
    #: Where the other web processes reach the one that holds it; empty where they cannot.
    address = models.CharField(max_length=255, blank=True, default="")
    started_at = models.DateTimeField(db_default=Now())

    class Meta:
        triggers = triggers.session_triggers()


class NodeHeartbeat(models.Model):
    """When a node was last heard of, on the database's clock.  Hot and narrow: no index."""

    node = models.OneToOneField(
        Node, on_delete=models.CASCADE, primary_key=True, related_name="heartbeat"
    )
    seen_at = models.DateTimeField()
    running = models.IntegerField(default=0)
    load = models.FloatField(default=0.0)


class Listening(models.Model):
    """Who could have heard nodes, and since when without a break: silence counts only then."""

    who = models.CharField(max_length=16, primary_key=True)
    since = models.DateTimeField()
    at = models.DateTimeField()


class NodeCredential(models.Model):
    """What a node signs in with.  Only the SHA-256 of the secret is kept: it is random."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="credentials")
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(db_default=Now())
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)


class JoinToken(models.Model):
    """What a new node trades for a credential of its own."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    digest = models.CharField(max_length=64, unique=True)
    label = models.CharField(max_length=100, blank=True, default="")
    auto_approve = models.BooleanField(default=False)
    labels = models.JSONField(default=dict, blank=True)
    uses_left = models.IntegerField(default=1)
    expires_at = models.DateTimeField()
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL)
    created_at = models.DateTimeField(db_default=Now())
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="join_token_uses_not_negative", condition=Q(uses_left__gte=0)
            )
        ]
