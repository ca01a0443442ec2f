"""Jobs and their versions: what users want."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth.models import User
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from nodes.models import known
from orchestrator import spec
from orchestrator.lifecycle import ENDED, JOB, JobState, JobType
from orchestrator.models import triggers

JOB_ENDED = known(tuple(ENDED))


class Job(models.Model):
    """What people want of it, its *intent*, and how it stands, its *status*.

    *Intent* is written by the Endpoint: ``version``, the number of the current specification;
    ``round``, which counts reruns: executions of earlier rounds no longer matter; since when it
    runs for this time (``round_at``); ``count``, ``priority``, ``labels`` and the stop.  Each
    change raises ``intent_rev``, and one that wants something again of a job that has ended
    makes it pending; in a new round nothing is counted yet.  The trigger does all that.

    *Status* is written by the StateUpdater: ``state``; ``reason``, a list of
    ``orchestrator.explain.reasons``, or one sentence of an earlier release; ``progress``, what
    decisions need to know of executions that have ended and been accounted for, in a size that
    does not grow with history; ``tally``; and ``seen_intent``, which intent that is about.
    ``outcome`` is the state of a job that has ended: jobs are looked up by it, as an index on
    ``state`` would make each move of each job an entry in all of them.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=63)
    namespace = models.ForeignKey(
        "orchestrator.Namespace",
        on_delete=models.PROTECT,
        default="default",
        db_default="default",
        db_index=False,  # Its name begins with it.
    )
    type = models.CharField(max_length=16, choices=[(t.value, t.value) for t in JobType])
    priority = models.SmallIntegerField(default=50)
    version = models.IntegerField(default=1)
    round = models.IntegerField(default=1)
    intent_rev = models.BigIntegerField(default=1, editable=False)
    seen_intent = models.BigIntegerField(default=0, editable=False)
    state = models.CharField(
        max_length=16, choices=[(s.value, s.value) for s in JobState], default=JOB.initial.value
    )
    outcome = models.CharField(max_length=16, null=True, blank=True, editable=False)
    reason = models.JSONField(blank=True, default=list)
    stop_requested = models.BooleanField(default=False)
    stop_reason = models.TextField(blank=True, default="")
    stopped_by = models.TextField(blank=True, default="", db_default="")
    count = models.IntegerField(default=1)
    progress = models.JSONField(default=dict, blank=True)
    tally = models.JSONField(default=dict, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    rev = models.BigIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(db_default=Now())
    created_by = models.ForeignKey(
        User,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        db_index=False,
        db_constraint=False,
    )
    round_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        triggers = triggers.job_triggers()
        indexes = [
            models.Index(fields=["-created_at", "id"], name="job_newest"),
            models.Index(
                fields=["outcome", "-created_at", "id"],
                name="job_by_outcome",
                condition=Q(outcome__isnull=False),
            ),
            models.Index(
                fields=["-created_at", "id"], name="job_live", condition=Q(outcome__isnull=True)
            ),
            models.Index(fields=["namespace", "-created_at", "id"], name="job_newest_of_namespace"),
            models.Index(fields=["-ended_at"], name="job_failed", condition=Q(outcome="failed")),
        ]
        constraints = [
            models.UniqueConstraint(fields=["namespace", "name"], name="job_name_in_namespace"),
            models.CheckConstraint(
                name="job_state_is_known", condition=Q(state__in=known(JOB.states))
            ),
            models.CheckConstraint(
                name="job_type_is_known", condition=Q(type__in=known(tuple(JobType)))
            ),
            models.CheckConstraint(
                name="job_numbers_are_counted",
                condition=Q(version__gte=1, round__gte=1, seen_intent__lte=F("intent_rev")),
            ),
            models.CheckConstraint(
                name="job_priority_in_range", condition=Q(priority__gte=1, priority__lte=100)
            ),
            models.CheckConstraint(name="job_count_not_negative", condition=Q(count__gte=0)),
            models.CheckConstraint(
                name="job_ended_iff_terminal",
                condition=Q(state__in=JOB_ENDED, ended_at__isnull=False, outcome=F("state"))
                | (~Q(state__in=JOB_ENDED) & Q(ended_at__isnull=True, outcome__isnull=True)),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def intent(self) -> dict[str, Any]:
        """What of its specification belongs to no version."""
        return {name: getattr(self, name) for name in ("name", "count", "priority", "labels")}


class SlotState(models.Model):
    """A slot of a job that is not as all begin; only the StateUpdater writes it.

    ``attempts`` is the number of its last attempt that has failed or was interrupted,
    ``failed_attempts`` and ``interruptions`` how many have since somebody wanted the job anew;
    before ``retry_at`` it is not placed again.
    """

    pk = models.CompositePrimaryKey("job", "slot")
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="slots", db_index=False)
    slot = models.IntegerField()
    attempts = models.IntegerField(default=0)
    failed_attempts = models.IntegerField(default=0)
    retry_at = models.DateTimeField(null=True)
    interruptions = models.IntegerField(default=0, db_default=0)

    def __str__(self) -> str:
        return f"slot {self.slot}"


class RemovedHistory(models.Model):
    """How much of a job that goes on is no longer kept: it ended before ``ended_before``.

    Only the chores that remove it write here.
    """

    job = models.OneToOneField(
        Job, on_delete=models.CASCADE, primary_key=True, related_name="removed_history"
    )
    executions = models.BigIntegerField(default=0, db_default=0)
    evaluations = models.BigIntegerField(default=0, db_default=0)
    ended_before = models.DateTimeField()


class JobVersion(models.Model):
    """One specification of a job: its body and the digests of it, see ``spec.storage``."""

    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="versions", db_index=False, db_constraint=False
    )
    number = models.IntegerField()
    spec = models.JSONField()
    digest = models.CharField(max_length=64)
    generation = models.CharField(max_length=32, default="")
    created_at = models.DateTimeField(db_default=Now())
    created_by = models.ForeignKey(
        User,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        db_index=False,
        db_constraint=False,
    )
    actor = models.TextField(default="")

    class Meta:
        triggers = triggers.version_triggers()
        constraints = [
            models.UniqueConstraint(fields=["job", "number"], name="one_version_per_number"),
            models.CheckConstraint(name="version_numbers_are_counted", condition=Q(number__gte=1)),
        ]

    def __str__(self) -> str:
        return f"version {self.number}"

    def in_full(self, **intent: Any) -> dict[str, Any]:
        """Its specification as people read it, with what else is wanted of its job."""
        return spec.in_full(self.spec, **intent)


class IdempotencyKey(models.Model):
    """The answer once given to a request, so that a repeat gets it again (kept 24 hours)."""

    actor = models.TextField()
    key = models.CharField(max_length=255)
    request_digest = models.CharField(max_length=64)
    status = models.SmallIntegerField()
    answer = models.JSONField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(fields=["created_at"], name="answer_by_age")]
        constraints = [models.UniqueConstraint(fields=["actor", "key"], name="one_answer_per_key")]
