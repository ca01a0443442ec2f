"""Specifications as they lie in the database: read as they are, and kept in memory by threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from orchestrator import broker, endpoint
from orchestrator.lifecycle import Trigger
from orchestrator.models import Execution, Job, JobVersion, spec_cache
from orchestrator.models.spec_cache import SpecCache
from orchestrator.planners import compute_forwarder
from orchestrator.spec import canonical, selectors
from orchestrator.worker import Worker
from orchestrator.worker.worker_id import WorkerId
from tests import rows

pytestmark = pytest.mark.django_db(transaction=True)

#: What a selector of 1,020 characters became when it was stored.
LONG = "zone notin (" + ", ".join(f"value-{i:03d}-abcd" for i in range(64)) + ")"


@pytest.fixture
def worker():
    it = Worker(WorkerId.mine())
    yield it
    it.heartbeat.end()


@pytest.fixture
def job():
    """A job that an earlier release accepted, and this one would not."""
    it = canonical(rows.job_spec(name="of-old", task={"command": ["true"]}))
    it |= {"constraints": [LONG], "affinities": [{"match": LONG, "weight": 50}]}
    it["task"]["config"] = {"user": "nobody"}
    it["retry"]["max_delay"] = 1.0
    row = Job.objects.create(name="of-old", type="batch")
    JobVersion.objects.create(
        job=row, number=1, spec=it, digest="as it was", generation="as it was"
    )
    assert len(LONG) > selectors.LONGEST
    broker.enqueue(row.pk, Trigger.JOB_SUBMIT)
    return row


def test_a_job_of_an_earlier_release_runs_and_is_stopped(job, worker):
    node = rows.node(attributes={"node.driver.process": "true"})
    assert worker.pull()
    execution = Execution.objects.get(job=job)
    assert execution.node_id == node.pk
    [told] = compute_forwarder.orders({node.pk: 0})
    assert [order.execution for order in told.orders] == [str(execution.pk)]
    endpoint.stop(job.pk, actor="user:a")
    assert worker.pull()
    execution.refresh_from_db()
    assert execution.desired == "stopped"


def test_a_job_of_an_earlier_release_waits_and_is_woken(job, worker):
    node = rows.node(cpu=50)
    assert worker.pull()
    assert broker.stats().blocked == 1
    type(node).objects.update(capacity_cpu=4000)
    broker.capacity_freed([node.pk])
    broker.unblock()
    assert worker.pull()
    assert Execution.objects.filter(job=job).exists()


def test_a_job_of_an_earlier_release_is_replaced(job):
    done = endpoint.submit(rows.job_spec(name="of-old"), actor="user:a")
    assert (done.version, done.changed) == (2, True)
    assert Job.objects.get(pk=job.pk).round == 2


# --- in memory -------------------------------------------------------------------------------


def versions(number):
    return [(rows.job(grace=n).pk, 1) for n in range(1, number + 1)]


def test_what_is_asked_for_is_answered_although_there_is_no_room_for_it():
    cache, keys = SpecCache(most=4), versions(6)
    for key in keys[:4]:
        cache.specs([key])
    assert {it.grace for it in cache.specs([keys[0], keys[4]]).values()} == {1, 5}
    assert set(cache.specs(keys)) == set(keys)


def test_what_was_asked_for_last_is_kept():
    cache, keys = SpecCache(most=3), versions(4)
    cache.specs(keys[:3])
    cache.specs([keys[0]])
    cache.specs([keys[3]])
    with CaptureQueriesContext(connection) as queries:
        cache.specs([keys[0], keys[3]])
        assert len(queries) == 0
        cache.specs([keys[1], keys[2]])
        assert len(queries) == 1


def test_another_version_of_the_same_job_is_not_mixed_up_with_it():
    first, second = rows.job(grace=1), rows.job(grace=2)
    for row, grace in ((first, 3), (second, 4)):
        changed = rows.job_spec(name=row.name, grace=grace)
        endpoint.submit(changed, actor="user:a")
    found = SpecCache(most=9).specs([(first.pk, 2), (second.pk, 1)])
    assert {key: it.grace for key, it in found.items()} == {(first.pk, 2): 3, (second.pk, 1): 2}


def test_threads_share_it():
    cache, keys = SpecCache(most=5), versions(12)
    together = threading.Barrier(4)

    def ask(mine):
        try:
            together.wait(10)
            for round_ in range(60):
                some = [keys[(mine * 3 + round_ + i) % 12] for i in range(3)]
                if set(cache.specs(some)) != set(some):
                    return "something is missing"
        finally:
            connection.close()
        return None

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(4))) == [None] * 4


def test_the_specifications_of_this_process_are_kept():
    [key] = versions(1)
    spec_cache.specs([key])
    with CaptureQueriesContext(connection) as queries:
        assert spec_cache.specs([key])[key].ask == 1
    assert len(queries) == 0
