"""Where work is looked for while looking from the beginning is slow."""

import time

import pytest
from django.db import connection

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
    place, known = looking.Place(), []
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
        first = broker.work(place)
        monkeypatch.setattr(place._whole, "allows", lambda: False)

        def note(execute, query, parameters, *rest):
            if "first_pairs" in query and "EXPLAIN" not in query:
                known.append(pages_read(query, parameters))
            return execute(query, parameters, *rest)

        with connection.execute_wrapper(note):
            again = broker.work(place)
    assert first.ready
    assert again.ready
    assert first.waited <= again.waited < 60
    assert known.pop(0) < 50  # Of the triggers alone there are some 200.
