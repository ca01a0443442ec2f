"""Waking: no room is promised twice or overlooked, and nothing is done where there is none."""

from collections import Counter
from uuid import UUID

import pytest
from django.db import connection, transaction

from nodes.hints import Hint, Listener
from nodes.models import NOTHING_SEEN, Node
from nodes.protocol.resources import Resources
from orchestrator import broker
from orchestrator.broker.blocked import Room, Waits, room_since
from orchestrator.broker.unblock import MOST_CLASSES, Candidate, choose
from orchestrator.explain.reasons import NoRoom
from orchestrator.models import BlockedClass, BlockedJob, Job
from orchestrator.scheduling.feasibility import Demand
from orchestrator.scheduling.plan import Blocked
from tests import rows

pytestmark = pytest.mark.django_db

CORE = Resources(cpu=1000)


def waits_for(need, *, missing=1):
    return Waits.of(Blocked(need, missing, NoRoom(1)), Demand(need, "process"))


def kept(waits):
    return {name: waits.dump()[name] for name in ("need", "where", "why", "impossible")}


def blocked(*waits, priority=50):
    """A blocked job for each of *waits*; their ids."""
    made = (
        Job(name=f"{priority}-{number}", type="batch", priority=priority)
        for number in range(len(waits))
    )
    jobs = Job.objects.bulk_create(made, batch_size=1000)
    BlockedClass.objects.bulk_create(
        (
            BlockedClass(digest=one.digest, **kept(one))
            for one in {it.digest: it for it in waits}.values()
        ),
        ignore_conflicts=True,
    )
    BlockedJob.objects.bulk_create(
        BlockedJob(job=job, blocked_class_id=one.digest, urgency=-priority, missing=one.missing)
        for job, one in zip(jobs, waits, strict=True)
    )
    return [job.pk for job in jobs]


def still_blocked():
    return BlockedJob.objects.count()


class TestHandingOut:
    def test_no_more_are_woken_than_there_is_room_for(self):
        blocked(*[waits_for(CORE)] * 3000)
        broker.capacity_freed([rows.node(cpu=1_000_000).pk])
        assert [broker.unblock() for _ in range(4)] == [1000, 0, 0, 0]

    def test_room_for_more_than_one_transaction_wakes_is_used(self):
        blocked(*[waits_for(CORE)] * 2600)
        broker.capacity_freed([rows.node(cpu=2_500_000).pk])
        assert broker.unblock() == 2500
        assert still_blocked() == 100

    def test_of_many_classes_the_one_that_fits_is_found(self):
        waits = [waits_for(Resources(cpu=1000 + n)) for n in range(MOST_CLASSES + 1)]
        jobs = dict(zip(blocked(*waits), waits, strict=True))
        last = max(jobs, key=lambda job: jobs[job].digest)
        others = BlockedClass.objects.exclude(digest=jobs[last].digest)
        others.update(need=waits_for(Resources(gpu=1)).dump()["need"])
        broker.capacity_freed([rows.node(cpu=10**9).pk])
        assert broker.unblock() == 1
        assert broker.lease(None, 5, "w")[0].job == last

    def test_its_work_is_that_of_nodes_and_jobs_added_not_multiplied(self):
        asked = Counter()

        class Labels(dict):
            def get(self, key, default=None):
                asked[key] += 1
                return super().get(key, default)

        room = [
            Room(Labels({"node.driver.process": "true"}), Resources(cpu=4000)) for _ in range(300)
        ]
        waits = waits_for(CORE)
        jobs = [Candidate(UUID(int=n), waits.digest, 1) for n in range(300)]
        assert len(choose(room, jobs, {waits.digest: waits})) == 300
        assert sum(one.free.cpu for one in room) == 900_000
        assert asked["node.driver.process"] <= 600

    def test_room_of_one_among_thousands_of_full_nodes_is_seen(self):
        full = [
            Node(id=UUID(int=n), name=f"full-{n}", approval="approved", connection="connected")
            for n in range(1, 1500)
        ]
        Node.objects.bulk_create(full)
        rows.node(id=UUID(int=2**128 - 1), cpu=4000)
        (room,) = room_since(NOTHING_SEEN, CORE)
        assert room.free.cpu == 4000


class TestTheNet:
    """Nobody noted that there is room: somebody changed the nodes' rows by hand."""

    def test_a_node_that_could_hold_some_is_used_best_priority_first(self):
        low = blocked(*[waits_for(CORE)] * 3, priority=10)
        high = blocked(waits_for(CORE), priority=60)
        rows.node(cpu=2000)
        assert broker.unblock() == 0, "nobody has noted it"
        assert broker.unblock_overlooked() == 2
        first, second = (one.job for one in broker.lease(None, 5, "w"))
        assert [first] == high
        assert second in low
        assert still_blocked() == 2

    def test_a_class_that_no_node_can_hold_is_left_alone(self):
        blocked(waits_for(Resources(cpu=500, gpu=1)), waits_for(Resources(cpu=9000)))
        small = blocked(waits_for(CORE), priority=10)
        rows.node(cpu=1000)
        assert broker.unblock_overlooked() == 1
        assert [one.job for one in broker.lease(None, 5, "w")] == small

    def test_nobody_is_woken_for_a_node_that_takes_no_work(self):
        blocked(waits_for(CORE))
        rows.node(draining=True)
        rows.node(attributes={})
        assert broker.unblock_overlooked() == 0

    def test_nobody_waits_and_nothing_happens(self):
        rows.node()
        assert broker.unblock_overlooked() == 0


@pytest.mark.django_db(transaction=True)
class TestTheNetAcrossTransactions:
    def test_where_nothing_fits_nothing_is_written(self):
        blocked(*[waits_for(CORE)] * 20)
        rows.node(cpu=500)
        with transaction.atomic(), connection.cursor() as cursor:
            broker.unblock_overlooked()
            cursor.execute("SELECT pg_current_xact_id_if_assigned()::text")
            assert cursor.fetchone() == (None,)

    def test_workers_are_told_of_whom_it_wakes(self):
        blocked(waits_for(CORE))
        rows.node()
        listener = Listener([Hint.WORK])
        listener.wait(5)
        assert broker.unblock_overlooked() == 1
        assert listener.wait(5) == {Hint.WORK}
        listener.close()
