"""Looks at jobs: their history, and the queue that only the broker touches."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Func, Q
from django.db.models.functions import Now

from orchestrator.lifecycle import EvaluationState

from .jobs import Job


class Evaluation(models.Model):
    """One look at a job: why, by whom, and what came of it.  Written once, when it is over.

    While it goes on it is a BrokerRow; its id is drawn then, so ids rise with its beginning.
    """

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(
        Job,
        on_delete=models.CASCADE,
        related_name="evaluations",
        db_index=False,
        db_constraint=False,
    )
    type = models.CharField(max_length=16)
    priority = models.SmallIntegerField()
    state = models.CharField(
        max_length=16,
        choices=[(s.value, s.value) for s in EvaluationState],
        default=EvaluationState.COMPLETE.value,
    )
    triggers = models.JSONField(default=dict)
    delivery = models.IntegerField(default=1)
    worker = models.CharField(max_length=128, default="")
    waited_since = models.DateTimeField(null=True)
    leased_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(db_default=Now())
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


def _of_job(name: str) -> Any:
    """The job of a row of the queue: no key that the server checks, as that would lock the job."""
    return models.OneToOneField(
        Job,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name=name,
        db_constraint=False,
    )


class BrokerTrigger(models.Model):
    """Somebody asks for an evaluation of a job.  Insert-only, so it takes no lock.

    These rows are the queue: whoever leases the job deletes them.  ``urgency`` is the priority,
    negative, so that the index is read forwards; ``type``, ``urgency`` and ``namespace`` are as
    they were when it was asked.
    """

    pk = models.CompositePrimaryKey("job", "id")
    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    id = models.BigIntegerField(
        db_default=Func(
            models.Value("orchestrator_trigger"),
            function="nextval",
            output_field=models.BigIntegerField(),
        )
    )
    urgency = models.SmallIntegerField()
    namespace = models.CharField(max_length=63)
    type = models.CharField(max_length=16)
    trigger = models.CharField(max_length=32)
    since = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(fields=["urgency", "namespace", "since"], name="broker_ready")]


class BrokerRow(models.Model):
    """A job that is leased, or whose last delivery failed: one row a job, so one lease a job.

    It is leased while it has ``leased_until``; ``evaluation_id`` is the fence, as its numbers
    rise.  ``deliveries`` count from the last success; after one that failed nobody leases it
    before ``retry_at`` but for what people ask, and with a ``dead_letter`` it is parked.
    An acknowledgement deletes it.
    """

    job = _of_job("broker_row")
    type = models.CharField(max_length=16)
    priority = models.SmallIntegerField(default=50)
    evaluation_id = models.BigIntegerField()
    worker = models.CharField(max_length=128, blank=True, default="")
    leased_at = models.DateTimeField(db_default=Now())
    leased_until = models.DateTimeField(null=True, blank=True)
    since = models.DateTimeField(db_default=Now())
    triggers = models.JSONField(default=dict)
    deliveries = models.IntegerField(default=1)
    retry_at = models.DateTimeField(null=True, blank=True)
    dead_letter = models.TextField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["job"], name="broker_dead", condition=Q(dead_letter__isnull=False)
            ),
        ]
        constraints = [
            models.CheckConstraint(
                name="broker_lease_is_whole",
                condition=Q(leased_until__isnull=True, worker="")
                | Q(leased_until__isnull=False, retry_at=None, dead_letter=None) & ~Q(worker=""),
            ),
        ]


class BrokerDue(models.Model):
    """When a job is looked at again, whatever happens: a follow-up, a back-off, a last retry."""

    job = _of_job("broker_due")
    at = models.DateTimeField()
    trigger = models.CharField(max_length=32)

    class Meta:
        indexes = [models.Index(fields=["at"], name="broker_due_at")]


class BlockedClass(models.Model):
    """What blocked jobs wait for: the same amounts under the same constraints.

    ``why`` is the shortage as it was found last, of whichever job; ``impossible`` says that no
    node could ever run them.  ``seen_at`` is when somebody last blocked, give or take minutes.
    """

    digest = models.CharField(max_length=32, primary_key=True)
    need = models.JSONField()
    where = models.JSONField()
    why = models.JSONField()
    impossible = models.BooleanField(default=False)
    seen_at = models.DateTimeField(db_default=Now())


class BlockedJob(models.Model):
    """A job of such a class.  The first to be woken is the most urgent, then the first blocked.

    ``waits_since`` is since when it has found no place, however often it was looked at meanwhile.
    """

    job = _of_job("blocked")
    blocked_class = models.ForeignKey(
        BlockedClass,
        on_delete=models.DO_NOTHING,
        related_name="jobs",
        db_column="class",
        db_index=False,
        db_constraint=False,
    )
    urgency = models.SmallIntegerField()
    since = models.DateTimeField(db_default=Now())
    waits_since = models.DateTimeField(null=True)
    missing = models.IntegerField(default=1)

    class Meta:
        indexes = [
            models.Index(
                fields=["blocked_class", "urgency", "since", "job"], name="blocked_of_class"
            ),
        ]
        constraints = [
            models.CheckConstraint(name="blocked_misses_some", condition=Q(missing__gte=1))
        ]


class FreedNode(models.Model):
    """A node that has more to give than it had: blocked jobs may be woken.  Insert-only."""

    id = models.BigAutoField(primary_key=True)
    node_id = models.UUIDField()
    at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(fields=["at"], name="freed_node_at")]


class WorkerProcess(models.Model):
    """A process that evaluates, and when it last said so."""

    name = models.CharField(max_length=128, primary_key=True)
    host = models.CharField(max_length=128)
    pid = models.IntegerField()
    seen_at = models.DateTimeField(db_default=Now())
    evaluations = models.BigIntegerField(default=0)
