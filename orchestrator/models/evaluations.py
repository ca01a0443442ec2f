"""Looks at jobs: their history, and the queue that only the broker touches."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from orchestrator.lifecycle import EvaluationState

from .jobs import Job


class Evaluation(models.Model):
    """One look at a job: why, by whom, and what came of it.  History; the queue is BrokerRow.

    Ids rise with time, so that partitions by id can be dropped whole.
    """

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="evaluations", db_index=False
    )
    type = models.CharField(max_length=16)
    priority = models.SmallIntegerField()
    state = models.CharField(
        max_length=16, choices=[(s.value, s.value) for s in EvaluationState], default="leased"
    )
    triggers = models.JSONField(default=dict)
    token = models.BigIntegerField()
    delivery = models.IntegerField(default=1)
    worker = models.CharField(max_length=128, default="")
    waited_since = models.DateTimeField(null=True)
    leased_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)
    outcome = models.TextField(blank=True, default="")
    record = models.JSONField(null=True, blank=True)
    error = models.TextField(blank=True, default="")

    class Meta:
        indexes = [
            models.Index(fields=["job", "-id"], name="evaluation_of_job"),
        ]
        constraints = [
            models.CheckConstraint(
                name="evaluation_state_is_known",
                condition=Q(state__in=sorted(s.value for s in EvaluationState)),
            )
        ]

    def __str__(self) -> str:
        return f"evaluation {self.pk}"


class BrokerRow(models.Model):
    """The queue of jobs that wait for evaluation: one row a job, so one lease a job.

    Ready means ``want > done``, not leased, not parked, not blocked and without ``not_before``:
    whatever time may end (back-off, a follow-up, the retry of a parked job) has its moment there,
    and ``not_before_trigger`` is what it then counts as.  ``blocked_class`` is the same for jobs
    that wait for the same thing.  The row of a job that has ended goes away.  Only the broker
    touches these rows; everybody else inserts a BrokerTrigger.
    """

    job = models.OneToOneField(
        Job, on_delete=models.CASCADE, primary_key=True, related_name="broker_row"
    )
    type = models.CharField(max_length=16)
    priority = models.SmallIntegerField(default=50)
    want = models.BigIntegerField(default=0)
    done = models.BigIntegerField(default=0)
    leased_want = models.BigIntegerField(null=True, blank=True)
    token = models.BigIntegerField(default=0)
    leased_until = models.DateTimeField(null=True, blank=True)
    worker = models.CharField(max_length=128, blank=True, default="")
    evaluation_id = models.BigIntegerField(null=True, blank=True)
    not_before = models.DateTimeField(null=True, blank=True)
    not_before_trigger = models.CharField(max_length=32, blank=True, default="")
    ready_since = models.DateTimeField(db_default=Now())
    deliveries = models.IntegerField(default=0)
    dead_letter = models.TextField(null=True, blank=True)
    blocked_on = models.JSONField(null=True, blank=True)
    blocked_class = models.CharField(max_length=64, blank=True, default="")
    triggers = models.JSONField(default=dict)

    class Meta:
        indexes = [
            models.Index(
                F("priority").desc(),
                F("ready_since"),
                F("job_id"),
                name="broker_ready",
                condition=Q(want__gt=F("done"))
                & Q(leased_want__isnull=True)
                & Q(dead_letter__isnull=True)
                & Q(blocked_on__isnull=True)
                & Q(not_before__isnull=True),
            ),
            models.Index(
                fields=["worker"], name="broker_leased", condition=Q(leased_want__isnull=False)
            ),
            models.Index(
                F("blocked_class"),
                F("priority").desc(),
                F("ready_since"),
                F("job_id"),
                name="broker_blocked",
                condition=Q(blocked_on__isnull=False),
            ),
            models.Index(
                F("priority").desc(),
                F("ready_since"),
                F("job_id"),
                name="broker_impossible",
                condition=Q(blocked_on__impossible=True),
            ),
            models.Index(
                fields=["not_before"], name="broker_due", condition=Q(not_before__isnull=False)
            ),
            models.Index(
                fields=["job"], name="broker_dead", condition=Q(dead_letter__isnull=False)
            ),
        ]
        constraints = [
            models.CheckConstraint(
                name="broker_done_within_want", condition=Q(done__lte=F("want"))
            ),
            models.CheckConstraint(
                name="broker_lease_is_whole",
                condition=Q(leased_want__isnull=True, leased_until__isnull=True)
                | Q(leased_want__isnull=False, leased_until__isnull=False),
            ),
        ]


class BrokerTrigger(models.Model):
    """Somebody asks for an evaluation.  Insert-only, so it takes no lock; folded before a lease.

    With a later ``not_before`` the evaluation is wanted then, not now.  A row with a node instead
    of a job says that this node has more to give than it had: blocked jobs may be woken.
    """

    id = models.BigAutoField(primary_key=True)
    job_id = models.UUIDField(null=True, blank=True)
    node_id = models.UUIDField(null=True, blank=True)
    trigger = models.CharField(max_length=32)
    not_before = models.DateTimeField(db_default=Now())
    at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [
            models.Index(
                fields=["not_before", "id"], name="trigger_due", condition=Q(node_id__isnull=True)
            ),
            models.Index(
                fields=["id"], name="trigger_capacity", condition=Q(node_id__isnull=False)
            ),
        ]
        constraints = [
            models.CheckConstraint(
                name="trigger_is_of_a_job_or_a_node",
                condition=Q(job_id__isnull=False, node_id__isnull=True)
                | Q(job_id__isnull=True, node_id__isnull=False),
            )
        ]


class WorkerProcess(models.Model):
    """A process that evaluates, and when it last said so."""

    name = models.CharField(max_length=128, primary_key=True)
    host = models.CharField(max_length=128)
    pid = models.IntegerField()
    seen_at = models.DateTimeField(db_default=Now())
    evaluations = models.BigIntegerField(default=0)
