"""What the pages read: what is asked for comes first, what there is room for second."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import Max
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.queries import executions, jobs, overview, queue
from orchestrator.access import Sight
from orchestrator.explain.reasons import Impossible, Lack
from orchestrator.lifecycle import Observed, Writer
from orchestrator.models import (
    BlockedJob,
    BrokerTrigger,
    Evaluation,
    Execution,
    Job,
    JobVersion,
    LiveExecution,
)
from tests import rows
from tests.dashboard import scenes

pytestmark = pytest.mark.django_db


def executions_of(job, node, number, **differing):
    """*number* executions as the StateUpdater would create them, in one statement."""
    ordinary = {"version": 1, "attempt": 1, "order_rev": 1, "by_writer": Writer.STATE_UPDATER}
    Execution.objects.bulk_create(
        Execution(job=job, node=node, slot=slot, **{**ordinary, **differing})
        for slot in range(number)
    )


def explained(query, *, analyse=False):
    """How the database goes about all that *query* asks for, tables of a few rows being large."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        with CaptureQueriesContext(connection) as asked:
            query()
        plan = []
        for statement in asked:
            cursor.execute(f"EXPLAIN {'(ANALYZE, TIMING OFF) ' * analyse}{statement['sql']}")
            plan += (line for (line,) in cursor.fetchall())
        return "\n".join(plan)


def evaluation_of(job):
    return Evaluation.objects.create(job=job, type="batch", priority=50)


def test_an_old_evaluation_shows_what_it_placed(operator):
    job, node = rows.job(), rows.node()
    old, new = evaluation_of(job), evaluation_of(job)
    made = rows.execution(job, node, evaluation=old)
    executions_of(job, node, 300, evaluation=new)
    text = operator.get(f"/evaluations/{old.pk}/", {"regions": "executions"}).content.decode()
    assert str(made.pk) in text


def test_the_slots_of_a_job_that_had_much_are_read_from_what_lives():
    """As a plan for any job has it, which is the plan that a web process keeps."""
    job, node = rows.job(state="running"), rows.node()
    live = rows.execution(job, node, observed=Observed.RUNNING)
    others = [rows.unknown_id() for _ in range(1000)]
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        over = {"observed": "completed", "desired": "stopped", "ended_at": timezone.now()}
        over |= {"settled": True, "reserved": False, "version": 1, "order_rev": 1}
        Execution.objects.bulk_create(
            Execution(job_id=it, node=node, slot=0, **over) for it in [job.pk] * 500 + others
        )
        LiveExecution.objects.bulk_create(
            LiveExecution(pk=it, job_id=it, slot=0, node=node) for it in others
        )
        cursor.execute("ANALYZE orchestrator_execution, orchestrator_liveexecution")
        cursor.execute("SET LOCAL session_replication_role = origin")
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        for _ in range(5):  # The driver prepares what it has met before.
            before = rows.executions_read()
            assert jobs.slots(job) == [(0, "running", "running", live.pk)]
            read = rows.executions_read() - before
    assert read == 1


def test_an_evaluation_says_that_it_placed_more_than_are_shown(operator):
    job, node = rows.job(), rows.node()
    look = evaluation_of(job)
    executions_of(job, node, 51, evaluation=look)
    text = operator.get(f"/evaluations/{look.pk}/", {"regions": "executions"}).content.decode()
    assert "the first 50 are shown" in text


def test_what_an_evaluation_placed_is_looked_for_among_what_its_job_began_then():
    look = evaluation_of(rows.job())
    for finished_at in (None, timezone.now()):
        look.finished_at = finished_at
        plan = explained(lambda: executions.placed_by(look))
        [looked_up] = [it for it in plan.splitlines() if "created_at >=" in it]
        assert "Index Cond" in looked_up


def test_a_job_that_fails_after_a_year_is_among_those_that_failed_lately():
    late = Job.objects.create(
        name="late", type="batch", created_at=timezone.now() - timedelta(days=365)
    )
    for _ in range(overview.ATTENTION + 5):
        rows.job(state="failed")
    since = Job.objects.aggregate(last=Max("ended_at"))["last"] + timedelta(microseconds=1)
    Job.objects.filter(pk=late.pk).update(state="failed")
    assert overview.failed_jobs(Sight(), since) == [late]


def test_a_version_is_shown_however_many_came_after_it(operator):
    job = rows.job(name="a-job")
    spec = JobVersion.objects.get().spec
    JobVersion.objects.bulk_create(
        JobVersion(job=job, number=number, spec={**spec, "count": number}, digest=str(number))
        for number in range(2, 101)
    )
    page = operator.get("/jobs/a-job/definition/?version=5").content.decode()
    assert "version 5, defaults resolved" in page
    assert "Changed since version 4" in page
    newest = operator.get("/jobs/a-job/definition/?version=101").content.decode()
    assert "version 100, defaults resolved" in newest


def test_a_node_counts_all_that_it_holds(operator):
    job, node = rows.job(), rows.node(name="full")
    executions_of(job, node, 230)
    text = operator.get("/nodes/full/").content.decode()
    assert "It holds 230 executions." in text
    assert "and 220 smaller ones" in text


def test_attempts_are_told_in_the_order_in_which_they_were_made():
    job, node, now = rows.job(), rows.node(), timezone.now()
    made = [
        rows.execution(job, node, attempt=attempt, created_at=now + timedelta(seconds=second))
        for second, attempt in ((3, 2), (1, 1), (0, 1), (2, 1))
    ]
    found = executions.attempts(made[0])
    assert [it.pk for it in found] == [made[n].pk for n in (2, 1, 3, 0)]


def test_jobs_are_found_by_the_state_alone_or_not_at_all():
    rows.job()
    assert len(jobs.page(Sight(), "", "", "").rows) == 1
    assert len(jobs.page(Sight(), "pending", "", "").rows) == 1
    assert len(jobs.page(Sight(), "failed", "", "").rows) == 0


NEVER = Impossible(1, Lack.DRIVER)


def test_a_full_state_hides_no_other():
    later = timezone.now() + timedelta(minutes=1)
    for _ in range(8):
        rows.blocked(rows.job())
    for _ in range(3):
        rows.asked(rows.job())
    for _ in range(2):
        rows.due((it := rows.dead_letter(rows.job())).job, later)
        assert it.dead_letter
    rows.blocked(rows.leased(rows.job()).job)
    rows.due(rows.job(), later)
    found = {name: held.n for name, held in queue.by_state(most=5).items()}
    assert found == {"ready": 3, "leased": 1, "waiting": 1, "blocked": 5, "dead": 2}
    found = {name: held.n for name, held in queue.by_state().items()}
    assert found == {"ready": 3, "leased": 1, "waiting": 1, "blocked": 8, "dead": 2}
    assert [len(queue.rows(Sight(), name)) for name in found] == [3, 1, 1, 8, 2]


def test_a_job_is_counted_and_shown_in_one_state():
    later = timezone.now() + timedelta(minutes=1)
    waits, blocked, dead = rows.job(), rows.job(), rows.job()
    rows.due(waits, later)
    rows.blocked(blocked)
    rows.due(blocked, later)
    rows.dead_letter(dead)
    rows.due(dead, later)
    before = {name: held.n for name, held in queue.by_state().items()}
    assert before == {"ready": 0, "leased": 0, "waiting": 1, "blocked": 1, "dead": 1}
    for job in (waits, blocked, dead):
        rows.asked(job)
    found = {name: held.n for name, held in queue.by_state().items()}
    assert found == {"ready": 3, "leased": 0, "waiting": 0, "blocked": 0, "dead": 0}
    assert {name: len(queue.rows(Sight(), name)) for name in found} == found


def test_what_belongs_to_another_state_takes_nobodys_place():
    later = timezone.now() + timedelta(minutes=1)
    busy = rows.leased(rows.job(priority=90)).job
    for _ in range(4 * queue.LISTED):
        rows.asked(busy)
        rows.due(it := rows.job(), later)
        rows.blocked(it)
    ready, waits = rows.job(), rows.job()
    rows.asked(ready)
    rows.due(waits, later + timedelta(minutes=1))
    assert [job.pk for job, _ in queue.rows(Sight(), "ready")] == [ready.pk]
    assert [job.pk for job, _ in queue.rows(Sight(), "waiting")] == [waits.pk]
    assert len(queue.rows(Sight(frozenset({"other"})), "blocked")) == 0
    assert queue.rows(Sight(), "blocked").more
    slow = overview.stuck_jobs(Sight(), timezone.now(), most=5)
    assert [job for job in slow if not hasattr(job, "blocked")] == [ready]


def test_what_was_blocked_and_is_looked_at_this_moment_is_not_called_slow(operator):
    rows.blocked(job := rows.job())
    old = timezone.now() - timedelta(hours=1)
    BlockedJob.objects.update(since=old)
    rows.asked(job)
    assert "longer than usual" not in operator.get("/").content.decode()
    BrokerTrigger.objects.update(since=old)
    assert "longer than usual" in operator.get("/").content.decode()


def test_more_than_a_thousand_evaluations_in_a_minute_are_counted():
    job, now = rows.job(), timezone.now()
    ordinary = {"type": "batch", "priority": 50, "finished_at": now}
    Evaluation.objects.bulk_create(Evaluation(job=job, **ordinary) for _ in range(1001))
    assert queue.flow(now).minute == 1001


def test_jobs_that_merely_wait_hide_nothing_worse():
    now = timezone.now()
    old = now - timedelta(hours=1)
    for _ in range(5):
        rows.blocked(rows.job(priority=90), since=old)
    late, never, dead = rows.job(), rows.job(), rows.job(priority=10)
    rows.asked(late, old)
    rows.blocked(never, NEVER)
    rows.dead_letter(dead)
    rows.asked(rows.job())
    found = overview.stuck_jobs(Sight(), now - timedelta(seconds=30), most=4)
    assert found[:3] == [dead, never, late]
    assert [job.priority for job in found[3:]] == [90] * 4
    assert not overview.stuck_jobs(Sight(frozenset({"other"})), now)


def test_of_many_stuck_jobs_no_more_are_read_than_are_wanted():
    now = timezone.now()
    jobs = Job.objects.bulk_create(Job(name=f"b-{n}", type="batch") for n in range(1000))
    rows.blocked(jobs[0])
    rows.blocked(jobs[1], NEVER)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orchestrator_blockedjob (job_id, class, urgency, since, missing)"
            " SELECT j.id, b.class, -10, now(), 1 FROM orchestrator_job j,"
            " orchestrator_blockedjob b WHERE b.job_id = %s AND NOT j.id = ANY (%s)",
            [jobs[0].pk, [job.pk for job in jobs[:2]]],
        )
        cursor.execute("ANALYZE orchestrator_blockedjob")  # Else what is known is of other tests.
    rows.dead_letter(rows.job())
    rows.asked(rows.job())
    plan = explained(lambda: overview.stuck_jobs(Sight(), now, most=5), analyse=True)
    read = [int(n) for n in re.findall(r"on orchestrator_blockedjob .*?actual rows=(\d+)", plan)]
    assert read
    assert max(read) <= 5


def test_the_newest_of_a_namespace_are_read_by_an_index_and_of_all_as_before():
    rows.job(name="it", namespace="team-a")
    for name in ("team-a", "default"):
        made = [Job(name=f"j-{n}", type="batch", namespace_id=name) for n in range(1000)]
        Job.objects.bulk_create(made)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE orchestrator_job")  # Else what is known is of other tests.
    for sight, index in (
        (Sight(), "job_newest"),
        (Sight(frozenset({"team-a"})), "job_newest_of_namespace"),
    ):
        plan = explained(lambda: overview.newest_jobs(sight))  # noqa: B023 - called at once
        assert f"using {index} " in plan
        assert "Sort" not in plan
        assert "team-a" in plan or sight == Sight()
    one_event = Sight(frozenset({"team-a"}), cluster=False)
    plan = explained(lambda: overview.newest_events(one_event))
    assert re.search(r"using orchestrator_event_\w+_namespace_id_idx", plan)  # Of each week.
    assert "Sort" not in plan.replace("Sort Key", "")


def test_what_failed_counts_by_its_end_and_is_found_by_an_index():
    job, node, now = rows.job(), rows.node(), timezone.now()
    for minutes in (1, 59, 61):
        made = rows.execution(
            job, node, observed=Observed.RUNNING, created_at=now - timedelta(hours=3)
        )
        rows.move(made, Observed.FAILED)
        made.refresh_from_db()
        scenes.ended(made, now - timedelta(minutes=minutes))
    assert {m.ago: m.failed for m in overview.recent(now).minutes if m.failed} == {1: 1, 59: 1}
    assert "history_of_failures" in explained(lambda: overview.recent(now))


def test_nothing_began_before_it_was_wanted():
    job, now = rows.job(), timezone.now()
    rows.execution(job, rows.node(), observed="completed")
    Job.objects.filter(pk=job.pk).update(round_at=now + timedelta(seconds=1))
    assert overview.recent(now + timedelta(seconds=2)).waits["submit"] == (None, None)
