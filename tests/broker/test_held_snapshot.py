"""Where work is looked for while looking from the beginning is slow."""

import time
from contextlib import contextmanager

import pytest
from django.db import connection, transaction

from orchestrator import broker
from orchestrator.broker import looking
from orchestrator.lifecycle import Trigger
from tests import rows
from tests.pages import nothing_is_vacuumed, pages_read


def test_one_slow_look_does_not_make_blind_for_long():
    pace = looking.Pace()
    pace.took(60.0)
    assert not pace.allows()
    assert pace._again_at <= time.monotonic() + looking.LONGEST


def test_what_is_brisk_is_done_each_time():
    pace = looking.Pace()
    pace.took(0.001, brisk=0.01)
    assert pace.allows()


@pytest.mark.django_db(transaction=True)
def test_how_long_work_waits_is_found_without_wading_through_what_was_leased(monkeypatch):
    place = looking.Place()
    job = rows.job()
    with nothing_is_vacuumed():
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO orchestrator_brokertrigger"
                " (job_id, urgency, namespace, type, trigger, since)"
                " SELECT gen_random_uuid(), -50, 'default', 'batch', 'retry',"
                " clock_timestamp() - interval '1 hour' FROM generate_series(1, 20000)"
            )
            cursor.execute("DELETE FROM orchestrator_brokertrigger")
            cursor.execute("ANALYZE orchestrator_brokertrigger")
        broker.enqueue(job.pk, Trigger.JOB_SUBMIT)
        with pages_of("first_pairs") as whole:
            first = broker.work(place)
        monkeypatch.setattr(place._whole, "allows", lambda: False)

        with pages_of("first_pairs") as known:
            again = broker.work(place)
    assert first.ready
    assert again.ready
    assert first.waited <= again.waited < 60
    assert max(known) < max(whole) / 2


@pytest.mark.django_db(transaction=True)
def test_what_is_leased_is_looked_up_by_its_job_however_many_were_leased(queue):
    with nothing_is_vacuumed():
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO orchestrator_brokerrow"
                " (job_id, type, priority, evaluation_id, worker, deliveries, leased_until,"
                " triggers)"
                " SELECT gen_random_uuid(), 'batch', 50, 0, 'w', 1, clock_timestamp(), '{}'"
                " FROM generate_series(1, 20000)"
            )
            cursor.execute("DELETE FROM orchestrator_brokerrow")
            cursor.execute("ANALYZE orchestrator_brokerrow")
        queue.jobs(3)
        with pages_of("first_pairs") as of_leasing:
            leases = queue.lease()
        with pages_of("acks AS") as of_acknowledging:
            queue.settle(*leases)
    assert len(leases) == 3
    assert (len(of_leasing), len(of_acknowledging)) == (1, 1)
    assert max(of_leasing + of_acknowledging) < 250  # The table has some 500.


@contextmanager
def pages_of(words):
    """How many pages each statement with these *words* reads."""
    found = []

    def note(execute, query, parameters, *rest):
        if words in query and "EXPLAIN" not in query:
            with transaction.atomic():
                found.append(pages_read(query, parameters))
                transaction.set_rollback(True)
        return execute(query, parameters, *rest)

    with connection.execute_wrapper(note):
        yield found
