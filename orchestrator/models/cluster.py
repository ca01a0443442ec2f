"""What concerns the whole cluster: settings, the journal, tokens of the API."""

from __future__ import annotations

import uuid

from django.contrib.auth.models import User
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from nodes.models import CurrentXid, Xid8Field
from orchestrator.models import triggers


class ClusterSetting(models.Model):
    """The one row of what operators set for the whole cluster."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    scheduling_paused = models.BooleanField(default=False)
    paused_reason = models.TextField(blank=True, default="")
    paused_by = models.TextField(blank=True, default="")
    paused_at = models.DateTimeField(null=True, blank=True)
    algorithm = models.CharField(
        max_length=16, choices=[("binpack", "bin-packing"), ("spread", "spread")], default="binpack"
    )
    epoch = models.UUIDField(default=uuid.uuid4)

    class Meta:
        constraints = [
            models.CheckConstraint(name="one_row_of_settings", condition=Q(id=1)),
            models.CheckConstraint(
                name="algorithm_is_known", condition=Q(algorithm__in=["binpack", "spread"])
            ),
        ]


class Event(models.Model):
    """A row of the journal: an append-only fact, for people and for streams.

    ``namespace`` is that of its job; what concerns no job is the cluster's, and has none.

    In the database its table is parted by weeks of ``at``, which belongs to the key there; ids are
    of one sequence all the same, see ``periods``.

    Readers follow ``id`` below what is still being written, see ``journal``: ids are committed
    out of order, and a reader that trusts them loses rows.
    """

    id = models.BigAutoField(primary_key=True)
    xid = Xid8Field(db_default=CurrentXid())
    at = models.DateTimeField(db_default=Now())
    namespace = models.CharField(max_length=63, null=True)
    topic = models.CharField(max_length=16)
    what = models.CharField(max_length=48)
    actor = models.TextField(default="")
    message = models.TextField(default="")
    job_id = models.UUIDField(null=True)
    execution_id = models.UUIDField(null=True)
    node_id = models.UUIDField(null=True)
    data = models.JSONField(default=dict)

    class Meta:
        triggers = triggers.event_triggers()
        indexes = [
            models.Index(fields=["job_id", "-id"], name="event_of_job"),
            models.Index(fields=["namespace", "-id"], name="event_of_namespace"),
            models.Index(
                fields=["node_id", "-id"],
                name="event_of_node",
                condition=Q(node_id__isnull=False),
            ),
        ]


class ApiToken(models.Model):
    """A bearer token of the HTTP API.  Only the SHA-256 of the secret is kept: it is random.

    It is good in ``namespaces``, or, when there are none, wherever its user may do something.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, unique=True)
    scopes = ArrayField(models.CharField(max_length=16), default=list)
    namespaces = ArrayField(
        models.CharField(max_length=63), blank=True, default=list, db_default=[]
    )
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name
