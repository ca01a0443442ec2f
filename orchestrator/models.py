"""Fields and constraints of what the orchestrator remembers.  The rules live elsewhere.

Moves between states are checked by the triggers of ``orchestrator.triggers``, generated from the
tables of ``orchestrator.lifecycle``.
"""

from __future__ import annotations

import uuid

from django.contrib.auth.models import User
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from nodes.models import CurrentXid, Node, Xid8Field, known
from nodes.protocol.resources import Resources

from . import triggers
from .lifecycle import DESIRED, JOB, OBSERVED, Desired, EvaluationState, JobState, JobType, Observed

TERMINAL = known(tuple(OBSERVED.terminal))
JOB_ENDED = ["completed", "failed", "stopped"]


class Job(models.Model):
    """What the user wants.  ``version`` points to the current specification.

    ``oldest_version`` is the first version whose executions still run the current task.
    ``round`` counts reruns: executions of earlier rounds no longer matter.  ``progress`` is what
    decisions need to know of executions that have ended and been accounted for, in a size that
    does not grow with history; only the StateUpdater writes it.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=63, unique=True)
    type = models.CharField(max_length=16, choices=[(t.value, t.value) for t in JobType])
    priority = models.SmallIntegerField(default=50)
    version = models.IntegerField(default=1)
    oldest_version = models.IntegerField(default=1)
    round = models.IntegerField(default=1)
    state = models.CharField(
        max_length=16, choices=[(s.value, s.value) for s in JobState], default=JOB.initial.value
    )
    reason = models.TextField(blank=True, default="")
    stop_requested = models.BooleanField(default=False)
    stop_reason = models.TextField(blank=True, default="")
    count = models.IntegerField(default=1)
    progress = models.JSONField(default=dict, blank=True)
    tally = models.JSONField(default=dict, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    rev = models.BigIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(db_default=Now())
    created_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL)
    round_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        triggers = triggers.job_triggers()
        indexes = [
            models.Index(fields=["-created_at", "id"], name="job_newest"),
            models.Index(fields=["state", "-created_at", "id"], name="job_by_state"),
        ]
        constraints = [
            models.CheckConstraint(
                name="job_state_is_known", condition=Q(state__in=known(JOB.states))
            ),
            models.CheckConstraint(
                name="job_priority_in_range", condition=Q(priority__gte=1, priority__lte=100)
            ),
            models.CheckConstraint(name="job_count_not_negative", condition=Q(count__gte=0)),
            models.CheckConstraint(
                name="job_ended_iff_terminal",
                condition=Q(state__in=JOB_ENDED, ended_at__isnull=False)
                | (~Q(state__in=JOB_ENDED) & Q(ended_at__isnull=True)),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class JobVersion(models.Model):
    """One specification of a job, as parsed, and as it was submitted."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="versions")
    number = models.IntegerField()
    spec = models.JSONField()
    digest = models.CharField(max_length=64)
    created_at = models.DateTimeField(db_default=Now())
    created_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL)
    actor = models.CharField(max_length=150, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["job", "number"], name="one_version_per_number")
        ]

    def __str__(self) -> str:
        return f"version {self.number}"


class IdempotencyKey(models.Model):
    """The answer once given to a request, so that a repeat gets it again (kept 24 hours)."""

    actor = models.CharField(max_length=150)
    key = models.CharField(max_length=255)
    request_digest = models.CharField(max_length=64)
    status = models.SmallIntegerField()
    answer = models.JSONField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["actor", "key"], name="one_answer_per_key")]


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
    whatever only time may end (back-off, a follow-up, the retry of a blocked or parked job) has
    its moment there, and ``not_before_trigger`` is what it then counts as.  ``blocked_class``
    is the same for jobs that wait for the same thing.  The row of a job that has ended goes away.
    Only the broker touches these rows; everybody else inserts a BrokerTrigger.
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


class ClusterSetting(models.Model):
    """The one row of what operators set for the whole cluster."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    scheduling_paused = models.BooleanField(default=False)
    paused_reason = models.TextField(blank=True, default="")
    paused_by = models.CharField(max_length=150, blank=True, default="")
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


class WorkerProcess(models.Model):
    """A process that evaluates, and when it last said so."""

    name = models.CharField(max_length=128, primary_key=True)
    host = models.CharField(max_length=128)
    pid = models.IntegerField()
    seen_at = models.DateTimeField(db_default=Now())
    evaluations = models.BigIntegerField(default=0)


class Execution(models.Model):
    """One attempt of one slot of a job on one node; also the order to that node.

    ``order_rev`` is the newest order about it, ``told_rev`` the newest that the node has taken.
    ``reserved`` says that its resources are still counted on the node.  ``settled`` says that its
    end has been accounted for in the job's progress, so decisions need not read it again.
    ``by_*`` carry who makes a change into the trigger, which keeps them in the history and clears
    them: between changes they are null.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="executions", db_index=False
    )
    node = models.ForeignKey(
        Node, on_delete=models.PROTECT, related_name="executions", db_index=False
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
    by_writer = models.CharField(max_length=32, null=True, blank=True)
    by_actor = models.CharField(max_length=150, null=True, blank=True)
    by_reason = models.TextField(null=True, blank=True)

    class Meta:
        triggers = triggers.execution_triggers()
        indexes = [
            models.Index(fields=["job", "-created_at", "id"], name="execution_of_job"),
            models.Index(fields=["job"], name="execution_unsettled", condition=Q(settled=False)),
            models.Index(
                fields=["node", "order_rev"],
                name="execution_untold",
                condition=Q(order_rev__gt=F("told_rev")),
            ),
            models.Index(fields=["node"], name="execution_reserved", condition=Q(reserved=True)),
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
                name="live_executions_hold_their_resources",
                condition=Q(observed__in=TERMINAL) | Q(reserved=True),
            ),
            models.UniqueConstraint(
                name="one_wanted_execution_per_slot",
                fields=["job", "slot"],
                condition=Q(desired="running"),
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def resources(self) -> Resources:
        return Resources(self.cpu, self.memory, self.disk, self.gpu)


class ExecutionHistory(models.Model):
    """Every transition of every execution, written by the trigger alone.

    ``rev`` is the revision of the execution after the change; a change of both lanes has two rows
    of one revision.  The key ends in ``at`` so that the table can be partitioned by time.
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
    actor = models.CharField(max_length=150, default="")
    reason = models.TextField(default="")
    at = models.DateTimeField()
    xid = Xid8Field(db_default=CurrentXid())


class ExecutionOutput(models.Model):
    """The last bytes a task printed, sent with its final report."""

    execution = models.OneToOneField(
        Execution, on_delete=models.CASCADE, primary_key=True, related_name="output"
    )
    stdout = models.TextField(default="")
    stderr = models.TextField(default="")
    stdout_size = models.BigIntegerField(default=0)
    stderr_size = models.BigIntegerField(default=0)


class Event(models.Model):
    """A row of the journal: an append-only fact, for people and for streams.

    Readers follow ``(xid, id)`` below the oldest running transaction: ids alone are committed
    out of order, and a reader that trusts them loses rows.
    """

    id = models.BigAutoField(primary_key=True)
    xid = Xid8Field(db_default=CurrentXid())
    at = models.DateTimeField(db_default=Now())
    topic = models.CharField(max_length=16)
    what = models.CharField(max_length=48)
    actor = models.CharField(max_length=150, default="")
    message = models.TextField(default="")
    job_id = models.UUIDField(null=True)
    execution_id = models.UUIDField(null=True)
    node_id = models.UUIDField(null=True)
    data = models.JSONField(default=dict)

    class Meta:
        indexes = [
            models.Index(fields=["xid", "id"], name="event_feed"),
            models.Index(fields=["job_id", "-id"], name="event_of_job"),
            models.Index(fields=["node_id", "-id"], name="event_of_node"),
        ]


class ApiToken(models.Model):
    """A bearer token of the HTTP API.  Only the SHA-256 of the secret is kept: it is random."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, unique=True)
    scopes = ArrayField(models.CharField(max_length=16), default=list)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name
