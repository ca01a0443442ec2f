"""Attempts to run slots of jobs on nodes, their history and their last output."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from nodes.models import CurrentXid, Node, Xid8Field, known
from nodes.protocol.resources import Resources
from orchestrator.explain import stop_causes
from orchestrator.lifecycle import APPROVED, DESIRED, OBSERVED, Desired, Observed
from orchestrator.models import triggers

from .evaluations import Evaluation
from .jobs import Job

TERMINAL = known(tuple(OBSERVED.terminal))


class Execution(models.Model):
    """One attempt of one slot of a job on one node; also the order to that node.

    No index looks at a column that its life changes: so changes are cheap, and what it is looked
    up by while it lives is in `LiveExecution` and `UntoldOrder`.
    ``order_rev`` is the newest order about it, ``told_rev`` the newest that the node has taken, or
    need not take any more.  ``reserved`` says that its resources are still counted on the node.
    ``generation`` is that of the task that it runs, see ``spec.storage``; of what ended in
    an earlier release it is empty.
    ``settled`` says that its end has been accounted for in the job's progress, so decisions need
    not read it again.
    ``stop_cause`` is why somebody ended it, a ``lifecycle.StopCause``, and ``stop_detail`` what
    only a sentence says; both are empty when it ended by itself, or in an earlier release.
    ``by_*`` carry who makes a change into the trigger, which keeps them in the history and clears
    them: between changes they are null.  ``by_steps`` are the moves of *observed* before the last,
    where several are written at once; each has a row of the history.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    job = models.ForeignKey(
        Job,
        on_delete=models.CASCADE,
        related_name="executions",
        db_index=False,
        db_constraint=False,
    )
    # Not checked by the server, which would look the node up for each execution, through all of its
    # versions while nothing can be vacuumed: whoever places holds the node's row.
    node = models.ForeignKey(
        Node,
        on_delete=models.PROTECT,
        related_name="executions",
        db_index=False,
        db_constraint=False,
    )
    evaluation = models.ForeignKey(
        Evaluation,
        null=True,
        on_delete=models.DO_NOTHING,
        related_name="executions",
        db_constraint=False,
        db_index=False,
    )
    version = models.IntegerField()
    generation = models.CharField(max_length=32, default="", db_default="")
    round = models.IntegerField(default=1)
    slot = models.IntegerField()
    attempt = models.IntegerField(default=1)
    desired = models.CharField(
        max_length=16, choices=[(s.value, s.value) for s in Desired], default=DESIRED.initial.value
    )
    observed = models.CharField(
        max_length=24,
        choices=[(s.value, s.value) for s in Observed],
        default=OBSERVED.initial.value,
    )
    rev = models.BigIntegerField(default=1, editable=False)
    order_rev = models.BigIntegerField()
    told_rev = models.BigIntegerField(default=0)
    cpu = models.BigIntegerField(default=0)
    memory = models.BigIntegerField(default=0)
    disk = models.BigIntegerField(default=0)
    gpu = models.BigIntegerField(default=0)
    reserved = models.BooleanField(default=True)
    settled = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    exit_code = models.IntegerField(null=True, blank=True)
    code = models.CharField(max_length=64, blank=True, default="")
    message = models.TextField(blank=True, default="")
    hint = models.TextField(blank=True, default="")
    retryable = models.BooleanField(default=True)
    ran = models.FloatField(null=True, blank=True)
    stop_cause = models.CharField(max_length=32, blank=True, default="", db_default="")
    stop_detail = models.TextField(blank=True, default="", db_default="")
    by_writer = models.CharField(max_length=32, null=True, blank=True)
    by_actor = models.TextField(null=True, blank=True)
    by_reason = models.TextField(null=True, blank=True)
    by_steps = models.JSONField(null=True, blank=True)

    class Meta:
        triggers = triggers.execution_triggers()
        indexes = [
            models.Index(fields=["job", "-created_at", "id"], name="execution_of_job"),
            models.Index(fields=["node", "-created_at", "id"], name="execution_of_node"),
            models.Index(fields=["-created_at", "id"], name="execution_newest"),
        ]
        constraints = [
            models.CheckConstraint(
                name="desired_is_known", condition=Q(desired__in=known(DESIRED.states))
            ),
            models.CheckConstraint(
                name="observed_is_known", condition=Q(observed__in=known(OBSERVED.states))
            ),
            models.CheckConstraint(
                name="ended_iff_terminal",
                condition=Q(observed__in=TERMINAL, ended_at__isnull=False)
                | (~Q(observed__in=TERMINAL) & Q(ended_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="terminal_is_not_wanted",
                condition=~Q(observed__in=TERMINAL) | Q(desired="stopped"),
            ),
            models.CheckConstraint(
                name="what_is_wanted_has_no_stop_cause",
                condition=Q(stop_cause="") | Q(desired="stopped"),
            ),
            models.CheckConstraint(
                name="live_executions_hold_their_resources",
                condition=Q(observed__in=TERMINAL) | Q(reserved=True),
            ),
            models.CheckConstraint(
                name="nothing_runs_without_approval",
                condition=~Q(observed__in=known(tuple(APPROVED))) | ~Q(desired="pending"),
            ),
            models.CheckConstraint(
                name="only_what_has_ended_is_settled",
                condition=Q(observed__in=TERMINAL) | Q(settled=False),
            ),
            models.CheckConstraint(
                name="execution_numbers_are_counted",
                condition=Q(slot__gte=0, attempt__gte=1, version__gte=1, round__gte=1)
                & Q(order_rev__gte=1),
            ),
            models.CheckConstraint(
                name="execution_needs_are_not_negative",
                condition=Q(cpu__gte=0, memory__gte=0, disk__gte=0, gpu__gte=0),
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def resources(self) -> Resources:
        return Resources(self.cpu, self.memory, self.disk, self.gpu)


class LiveExecution(models.Model):
    """An execution that is not settled, or holds room of its node; what it is looked up by.

    ``is_wanted`` is true while *running* is desired, else null.  ``record`` is what decisions need
    of it while it runs as it was told, see ``worker.executions``; null while it does not, and
    where its job had few slots when it began to.  The triggers of executions alone write it.
    """

    execution = models.OneToOneField(
        Execution,
        on_delete=models.DO_NOTHING,
        primary_key=True,
        related_name="live",
        db_constraint=False,
    )
    job = models.ForeignKey(
        Job, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    slot = models.IntegerField()
    node = models.ForeignKey(
        Node, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    is_wanted = models.BooleanField(null=True)
    record = models.BinaryField(null=True)

    class Meta:
        triggers = triggers.followers("live_execution_follows")
        indexes = [models.Index(fields=["node"], name="live_execution_of_node")]
        constraints = [
            models.UniqueConstraint(
                name="one_wanted_execution_per_slot", fields=["job", "slot", "is_wanted"]
            ),
            models.CheckConstraint(
                name="wanted_or_null", condition=Q(is_wanted=True) | Q(is_wanted=None)
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)


class UntoldOrder(models.Model):
    """The newest order about an execution, while its node has not taken it.

    The triggers of executions alone write it.
    """

    pk = models.CompositePrimaryKey("node", "rev", "execution")
    node = models.ForeignKey(
        Node, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    rev = models.BigIntegerField()
    execution = models.ForeignKey(
        Execution,
        on_delete=models.DO_NOTHING,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )

    class Meta:
        triggers = triggers.followers("untold_order_follows")


class ExecutionHistory(models.Model):
    """Every transition of every execution, written by the trigger alone.

    ``rev`` is the revision of the execution after the change; a change of both lanes has two rows
    of one revision.  ``cause`` is the ``stop_cause`` that a change has set; then ``reason`` is its
    detail.  The key ends in ``at`` so that the table can be partitioned by time.
    """

    pk = models.CompositePrimaryKey("execution_id", "rev", "lane", "at")
    execution = models.ForeignKey(
        Execution,
        on_delete=models.DO_NOTHING,
        related_name="history",
        db_constraint=False,
        db_index=False,
    )
    rev = models.BigIntegerField()
    lane = models.CharField(max_length=8)
    before = models.CharField(max_length=24)
    after = models.CharField(max_length=24)
    writer = models.CharField(max_length=32)
    actor = models.TextField(default="")
    cause = models.CharField(max_length=32, default="", db_default="")
    reason = models.TextField(default="")
    at = models.DateTimeField()
    xid = Xid8Field(db_default=CurrentXid())

    class Meta:
        triggers = triggers.history_triggers()
        indexes = [
            models.Index(
                fields=["-at"],
                name="history_of_failures",
                condition=Q(lane="observed", after="failed"),
            )
        ]

    @property
    def why(self) -> str:
        """Cause and reason as a sentence."""
        return stop_causes.sentence(self.cause, self.reason)


class ExecutionOutput(models.Model):
    """The last bytes a task printed, sent with its final report."""

    execution = models.OneToOneField(
        Execution, on_delete=models.CASCADE, primary_key=True, related_name="output"
    )
    stdout = models.TextField(default="")
    stderr = models.TextField(default="")
    stdout_size = models.BigIntegerField(default=0)
    stderr_size = models.BigIntegerField(default=0)
