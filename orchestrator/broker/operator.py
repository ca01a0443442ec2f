"""What operators do to the queue."""

from __future__ import annotations

from uuid import UUID

from django.db import connection, transaction
from django.db.models.functions import Now

from nodes.hints import Hint, after_commit
from orchestrator.explain.errors import Conflict
from orchestrator.explain.formatting import person
from orchestrator.lifecycle import Trigger
from orchestrator.models import BrokerRow, ClusterSetting, Evaluation, journal

from .enqueue import enqueue


def pause(reason: str, actor: str) -> None:
    """Lend no more evaluations until ``resume``; what is being evaluated is finished."""
    with transaction.atomic():
        ClusterSetting.objects.filter(pk=1).update(
            scheduling_paused=True, paused_reason=reason, paused_by=actor, paused_at=Now()
        )
        said = f": {reason}" if reason else ""
        _record("scheduling-paused", f"{person(actor)} pauses scheduling{said}", actor)


def resume(actor: str) -> None:
    """Lend evaluations again."""
    with transaction.atomic():
        ClusterSetting.objects.filter(pk=1).update(
            scheduling_paused=False, paused_reason="", paused_by="", paused_at=None
        )
        _record("scheduling-resumed", f"{person(actor)} resumes scheduling", actor)
        after_commit(Hint.WORK)


def evaluate_now(job: UUID, actor: str) -> None:
    """Evaluate *job* as soon as may be, whatever it waits for."""
    with transaction.atomic():
        _record("evaluate", f"{person(actor)} asks for an evaluation", actor, job)
        enqueue(job, Trigger.OPERATOR)


def retry_dead(job: UUID, actor: str) -> None:
    """Try the evaluation of a parked job again, from the first delivery on."""
    with transaction.atomic():
        if not BrokerRow.objects.filter(job=job, dead_letter__isnull=False).exists():
            raise Conflict(detail="there is no dead letter of this job; it may be tried already")
        _record(
            "dead-letter-retried",
            f"{person(actor)} has the dead letter tried again",
            actor,
            job,
        )
        enqueue(job, Trigger.OPERATOR)


def drop_dead(job: UUID, actor: str) -> None:
    """Forget the evaluation that a parked job asked for; the next trigger asks for a new one."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """
            WITH dropped AS (
                DELETE FROM orchestrator_brokerrow
                WHERE job_id = %s AND dead_letter IS NOT NULL
                RETURNING job_id, evaluation_id),
            undue AS (
                DELETE FROM orchestrator_brokerdue USING dropped
                WHERE orchestrator_brokerdue.job_id = dropped.job_id)
            SELECT evaluation_id FROM dropped
            """,
            [job],
        )
        dropped = cursor.fetchone()
        if dropped is None:
            raise Conflict(detail="there is no dead letter of this job; it may be tried already")
        Evaluation.objects.filter(pk=dropped[0]).update(
            state="cancelled", outcome=f"dropped by {person(actor)}"
        )
        _record("dead-letter-dropped", f"{person(actor)} drops the dead letter", actor, job)


def _record(what: str, message: str, actor: str, job: UUID | None = None) -> None:
    topic = "cluster" if job is None else "job"
    journal.record([journal.fact(topic, what, message, actor=actor, job=job)])
    after_commit(Hint.VIEW)
