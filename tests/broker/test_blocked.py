"""Blocked jobs: who is woken by what, in which order, at which cost."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from nodes.models import NOTHING_SEEN, Node
from nodes.protocol.resources import Resources
from orchestrator import broker
from orchestrator.explain.reasons import NoRoom
from orchestrator.lifecycle import Trigger
from orchestrator.models import BlockedClass, BlockedJob, Evaluation, FreedNode
from orchestrator.scheduling.feasibility import Demand
from orchestrator.scheduling.plan import Blocked
from orchestrator.spec import selectors
from tests import rows

CORE = Resources(cpu=1000)
SINCE = datetime(2026, 3, 1, 12, tzinfo=UTC)


#: The revision of a view of the cluster that has seen everything there is and will be.
ALL_SEEN = f"{2**62 + 3}:{2**62 + 3}:"


def revision():
    """The revision of a view of the cluster taken now, as the snapshot of worlds has it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_snapshot()::text")
        return cursor.fetchone()[0]


def block(queue, jobs, *, need=CORE, missing=1, where="", revision=ALL_SEEN):
    """Let each of *jobs*, which are ready, wait for *need*."""
    blocked = Blocked(need=need, missing=missing, why=NoRoom(1), since=SINCE)
    demand = Demand(need, "process", selectors.parse(where) if where else ())
    leases = queue.lease()
    assert {one.job for one in leases} == {job.pk for job in jobs}
    queue.settle(
        *leases,
        blocked=blocked,
        demand=demand,
        revision=revision,
    )
    return jobs


def woken(queue):
    return [one.job for one in queue.lease()]


@pytest.mark.django_db
class TestAlone:
    def test_it_is_not_lent_until_there_is_room(self, queue):
        node = rows.node(cpu=1000)
        (job,) = block(queue, [queue.job()])
        assert woken(queue) == []
        broker.capacity_freed([node.pk])
        assert woken(queue) == [job.pk]
        assert queue.row(job).triggers == {"capacity": 1}

    def test_as_many_are_woken_as_can_be_held_best_priority_first(self, queue):
        node = rows.node(cpu=2500)
        jobs = [queue.job(priority) for priority in (10, 30, 20, 40)]
        block(queue, jobs)
        broker.capacity_freed([node.pk])
        assert woken(queue) == [jobs[3].pk, jobs[1].pk]

    def test_a_job_of_many_slots_takes_all_the_room_it_can_use(self, queue):
        node = rows.node(cpu=3000)
        (greedy,) = block(queue, [queue.job(60)], missing=10)
        block(queue, [queue.job(50)])
        broker.capacity_freed([node.pk])
        assert woken(queue) == [greedy.pk]

    def test_a_small_job_gets_what_a_large_one_cannot_use(self, queue):
        node = rows.node(cpu=3000)
        block(queue, [queue.job(60)], need=Resources(cpu=4000))
        (small,) = block(queue, [queue.job(50)])
        broker.capacity_freed([node.pk])
        assert woken(queue) == [small.pk]

    def test_a_node_that_can_never_match_wakes_nobody(self, queue):
        plain = rows.node(labels={"zone": "b"})
        fitting = rows.node(labels={"zone": "a"})
        (job,) = block(queue, [queue.job()], where="zone in (a, c), node.arch = x86_64")
        broker.capacity_freed([plain.pk])
        assert woken(queue) == []
        broker.capacity_freed([fitting.pk])
        assert woken(queue) == [job.pk]

    @pytest.mark.parametrize(
        "state",
        [
            {"connection": "disconnected"},
            {"approval": "pending"},
            {"eligible": False},
            {"draining": True},
            {"quarantined": "twice"},
            {"degraded": "its disk is full"},
            {"attributes": {}},
        ],
    )
    def test_a_node_that_takes_no_such_work_wakes_nobody(self, queue, state):
        node = rows.node(**state)
        block(queue, [queue.job()])
        broker.capacity_freed([node.pk])
        assert woken(queue) == []

    def test_anything_else_that_happens_to_the_job_unblocks_it(self, queue):
        (job,) = block(queue, [queue.job()])
        broker.enqueue(job.pk, Trigger.JOB_UPDATE)
        assert woken(queue) == [job.pk]
        assert not BlockedJob.objects.exists()

    def test_what_is_blocked_waits_for_no_moment(self, queue):
        """Trying each again would cost more than everything else, the more jobs the more."""
        (job,) = block(queue, [queue.job()])
        assert queue.due(job) is None
        queue.let_time_pass()
        assert woken(queue) == []

    def test_a_follow_up_of_a_blocked_job_keeps_its_moment(self, queue):
        job = queue.job()
        lease = queue.one()
        at = lease.waited_since + timedelta(hours=1)
        queue.settle(
            lease,
            blocked=Blocked(CORE, 1, NoRoom(1)),
            followups=[(at, Trigger.QUEUE_TIMEOUT)],
            revision=ALL_SEEN,
        )
        assert (queue.due(job), queue.stands(job).state) == (at, "blocked")
        queue.let_time_pass()
        assert queue.one().triggers == {"queue-timeout": 1}
        assert not BlockedJob.objects.exists()

    def test_what_it_waits_for_is_kept_for_people(self, queue):
        (job,) = block(queue, [queue.job()], missing=3, where="node.arch = arm64")
        assert queue.stands(job).waits == broker.Waits(
            need=CORE,
            missing=3,
            where=("node.driver.process = true", "node.arch = arm64"),
            why=NoRoom(1),
            since=SINCE.isoformat(),
        )
        assert queue.stands(job).since == SINCE

    def test_one_look_tells_all_of_a_class_why_they_wait(self, queue):
        first, second = block(queue, queue.jobs(2))
        broker.enqueue(first.pk, Trigger.JOB_UPDATE)
        blocked = Blocked(need=CORE, missing=1, why=NoRoom(7))
        demand = Demand(CORE, "process")
        queue.settle(queue.one(), blocked=blocked, demand=demand, revision=ALL_SEEN)
        assert BlockedClass.objects.count() == 1
        assert [queue.stands(job).waits.why for job in (first, second)] == [NoRoom(7)] * 2

    def test_what_nobody_waits_for_any_more_is_forgotten_after_an_hour(self, queue):
        (waiting,) = block(queue, [queue.job()])
        broker.enqueue(waiting.pk, Trigger.JOB_UPDATE)
        queue.settle(queue.one())
        broker.forget_classes()
        assert BlockedClass.objects.count() == 1
        block(queue, [queue.job()], need=Resources(cpu=2000))
        BlockedClass.objects.update(seen_at=Now() - timedelta(hours=2))
        broker.forget_classes()
        assert [one.need["cpu"] for one in BlockedClass.objects.all()] == [2000]

    def test_freed_capacity_is_forgotten_when_nobody_waits(self, queue):
        broker.capacity_freed([rows.node().pk])
        broker.catch_up()
        assert not FreedNode.objects.exists()

    def test_a_wake_up_reads_as_many_jobs_as_can_be_held(self, queue):
        """Its cost follows what was freed, not how many wait."""
        node = rows.node(cpu=1000)
        template = block(queue, [queue.job()])[0]
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO orchestrator_job (id, name, type, priority, version, round, state,"
                " reason, stop_requested, stop_reason, count, progress, tally, labels, rev,"
                " intent_rev, seen_intent) SELECT gen_random_uuid(), 'more-' || n, type, priority,"
                " 1, 1, 'pending', '[]', false, '', 1, '{}', '{}', '{}', 1, 1, 0"
                " FROM orchestrator_job, generate_series(1, 20000) n WHERE id = %s",
                [template.pk],
            )
            cursor.execute(
                "INSERT INTO orchestrator_blockedjob (job_id, class, urgency, since, missing)"
                " SELECT j.id, b.class, -10, now(), 1"
                " FROM orchestrator_job j, orchestrator_blockedjob b WHERE j.name LIKE 'more-%%'"
            )
            cursor.execute("ANALYZE orchestrator_blockedjob")
            broker.capacity_freed([node.pk])
            before = _rows_read(cursor)
            assert broker.unblock() == 1
            assert _rows_read(cursor) - before < 20
        assert woken(queue) == [template.pk]

    def test_a_change_that_was_not_seen_is_looked_at_again_soon(self, queue):
        node = rows.node(cpu=1000)
        (job,) = block(queue, [queue.job()], revision=NOTHING_SEEN)
        assert not BlockedJob.objects.exists()
        assert (queue.due(job) - Evaluation.objects.get().finished_at).total_seconds() < 1
        queue.let_time_pass()
        assert woken(queue) == [job.pk]
        assert node.pk


def _rows_read(cursor):
    """Rows of the queue that this transaction has read, by index or not."""
    cursor.execute(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables"
        " WHERE relname = 'orchestrator_blockedjob'"
    )
    return cursor.fetchone()[0]


@pytest.mark.django_db(transaction=True)
class TestTogether:
    def test_no_wake_up_is_lost(self, queue, at_once):
        """A node is freed while a plan blocks that has looked before: the job is woken.

        The plan has found no changed node; the waker must not pass before it has blocked.
        """
        node = rows.node(cpu=1000)
        job = queue.job()
        lease = queue.one()
        looked, tried = threading.Event(), threading.Event()

        def plan():
            with transaction.atomic():
                broker.hold([lease])
                blocked = Blocked(CORE, 1, False, "")
                broker.ack([broker.Result(lease, blocked=blocked, revision=ALL_SEEN)])
                looked.set()
                assert tried.wait(20)

        def report():
            assert looked.wait(20)
            broker.capacity_freed([node.pk])
            assert broker.unblock() == 0
            tried.set()
            return broker.unblock(patience=20)

        assert at_once([plan, report])[1] == 1
        assert woken(queue) == [job.pk]

    def test_a_plan_sees_what_was_freed_before_it_looks(self, queue):
        """The other half: the wake-up is consumed before the plan blocks."""
        node = rows.node(cpu=1000)
        Node.objects.update(allocated_cpu=1000)
        job = queue.job()
        seen = revision()
        lease = queue.one()
        with transaction.atomic():
            Node.objects.update(allocated_cpu=0)
            broker.capacity_freed([node.pk])
        assert broker.unblock() == 0
        queue.settle(lease, blocked=Blocked(CORE, 1, NoRoom(1)), revision=seen)
        queue.let_time_pass()
        assert woken(queue) == [job.pk]
        assert queue.row(job).deliveries == 1

    def test_storms_of_freeing_and_blocking_end_with_everybody_served(self, queue, at_once):
        """One core, many jobs that need it: whoever is blocked is woken by whoever lets go."""
        node = rows.node(cpu=1000)
        jobs = queue.jobs(12)
        served = []
        guard = threading.Lock()

        def work(name):
            def run():
                while len(served) < len(jobs):
                    for lease in queue.lease(3, name):
                        _evaluate(lease)

            return run

        def _evaluate(lease):
            seen = revision()
            full = Node.objects.get(pk=node.pk).allocated_cpu > 0
            if full:
                with transaction.atomic():
                    broker.lock_blocking()
                    if lease in broker.hold([lease]):
                        blocked = Blocked(CORE, 1, False, "")
                        broker.ack([broker.Result(lease, blocked=blocked, revision=seen)])
                return
            with transaction.atomic():
                if lease not in broker.hold([lease]):
                    return
                on = Node.objects.select_for_update().get(pk=node.pk)
                fits = on.allocated_cpu == 0
                if fits:
                    Node.objects.filter(pk=node.pk).update(allocated_cpu=1000)
                broker.ack([broker.Result(lease, complete=fits)])
            if fits:
                with guard:
                    served.append(lease.job)
                with transaction.atomic():
                    Node.objects.filter(pk=node.pk).update(allocated_cpu=0)
                    broker.capacity_freed([node.pk])

        at_once([work(f"w{n}") for n in range(4)])
        assert sorted(served) == sorted(job.pk for job in jobs)
        assert not BlockedJob.objects.exists()
