"""What is the matter with the cluster, said at once whatever the database does."""

import asyncio
import re
import threading
from datetime import timedelta

import psycopg
import pytest
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from orchestrator.endpoint import health
from orchestrator.endpoint.health import Health, Watch
from orchestrator.explain.database_errors import FULL, SILENT, UNREACHABLE
from orchestrator.models import (
    BrokerDue,
    BrokerRow,
    BrokerTrigger,
    ClusterSetting,
    Evaluation,
    WorkerProcess,
    journal,
)
from orchestrator.server.database_outages import answering_without_database
from tests import rows
from tests.sessions import open_transaction

FINE = Health()


@pytest.fixture
def worker(db):
    return WorkerProcess.objects.create(name="elsewhere-1", host="elsewhere", pid=1)


def asked_long_ago(job, seconds: int = 60) -> None:
    BrokerTrigger.objects.filter(job_id=job.pk).delete()
    rows.asked(job, timezone.now() - timedelta(seconds=seconds))


# --- nobody evaluates ----------------------------------------------------------------------------


def test_jobs_that_wait_while_nothing_is_evaluated_are_told_of(worker):
    for name in ("a", "b"):
        asked_long_ago(rows.job(name=name))
    answer = Client().get("/readyz")
    assert answer.status_code == 200
    # A machine at its limit takes seconds for this.
    assert re.fullmatch(
        r"Nobody evaluates: jobs have waited for a worker for (6|7)\d s\. "
        r"Look at the log of `manage\.py worker`\.",
        answer.json()["detail"],
    )


def test_a_job_whose_moment_has_come_waits_like_one_that_has_just_been_asked_for(worker):
    job = rows.job()
    BrokerTrigger.objects.all().delete()
    BrokerDue.objects.create(job=job, trigger="retry", at=Now() - timedelta(seconds=60))
    assert health.current().warning.startswith("Nobody evaluates: jobs have waited")


def test_a_long_queue_that_moves_is_no_reason_to_worry(worker):
    job = rows.job()
    asked_long_ago(job)
    Evaluation.objects.create(job=job, type="batch", priority=50, leased_at=Now())
    assert health.current() == FINE


def test_jobs_may_wait_while_scheduling_is_paused(worker):
    asked_long_ago(rows.job())
    ClusterSetting.objects.update(scheduling_paused=True)
    assert health.current() == FINE


def test_a_worker_that_is_silent_while_it_holds_jobs_is_named_with_them(worker):
    silent = WorkerProcess.objects.create(name="c-02:17:1:x:y", host="c-02", pid=17)
    held = {"type": "batch", "evaluation_id": 1, "worker": silent.name}
    for _ in range(2):
        BrokerRow.objects.create(job=rows.job(), leased_until=Now() + timedelta(minutes=1), **held)
    assert health.current() == FINE
    WorkerProcess.objects.filter(pk=silent.pk).update(seen_at=Now() - timedelta(seconds=12))
    answer = Client().get("/readyz")
    assert answer.status_code == 200
    assert re.fullmatch(
        r"The worker c-02:17 has not been heard of for 1\d s: 2 jobs it has taken wait until its "
        r"leases end, or until it is killed\.",
        answer.json()["detail"],
    )


@pytest.mark.django_db(transaction=True)
def test_who_keeps_events_from_being_read_is_named(worker, monkeypatch, eventually):
    """After as long as it was seen to write, however long its transaction was open before."""
    monkeypatch.setattr(health, "SLOW", 0.3)
    assert health.current() == FINE
    with open_transaction(lambda: journal.record([journal.fact("job", "any", "any")])):
        assert health.current() == FINE
        warning = eventually(lambda: health.current().warning)
    said = r"The event feed stands still: a transaction of .+ \(process \d+ of the database\) has"
    assert re.match(said, warning), warning
    assert health.current() == FINE


# --- a watch -------------------------------------------------------------------------------------


class Database:
    """Looked at by a watch: answers, hangs or fails as it is told."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.error: Exception | None = None

    def look(self) -> Health:
        self.answers.wait()
        if self.error is not None:
            raise self.error
        return FINE


@pytest.fixture
def database(settings):
    settings.DATABASE_DISK = None  # Whose disk nobody looks at.
    found = Database()
    yield found
    found.answers.set()


@pytest.fixture
def watch(database):
    watch = Watch(database.look, every=0.01, patience=0.2)
    watch.start()
    return watch


def test_a_database_that_hangs_is_silent_and_one_that_goes_on_is_fine(watch, database, eventually):
    assert watch.health() == FINE
    database.answers.clear()
    eventually(lambda: watch.outage() == SILENT)
    assert watch.health().trouble == SILENT
    database.answers.set()
    eventually(lambda: watch.outage() is None)
    assert watch.health() == FINE


def test_a_database_that_is_gone_is_an_outage_with_its_reason(watch, database, eventually):
    database.error = OperationalError("gone")
    database.error.__cause__ = psycopg.OperationalError("connection refused")
    eventually(lambda: watch.outage() == UNREACHABLE)


def test_a_full_disk_that_somebody_met_is_believed_while_reading_goes_on(watch):
    watch.remember(FULL)
    assert watch.health().trouble == FULL
    assert watch.outage() is None


def test_one_mistake_does_not_end_the_watch(watch, database, eventually):
    database.error = ValueError("a mistake of ours")
    eventually(lambda: watch.health().trouble == health.UNKNOWN)
    database.error = None
    eventually(lambda: watch.health() == FINE)


@pytest.mark.django_db(transaction=True)
def test_one_session_that_is_ended_is_no_outage():
    WorkerProcess.objects.create(name="elsewhere-1", host="elsewhere", pid=1)
    ask = health.OwnConnection()
    try:
        assert ask() == FINE
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'muster health' AND datname = current_database()"
            )
            assert cursor.fetchall() == [(True,)]
        assert ask() == FINE
    finally:
        ask.close()


# --- what is answered meanwhile ------------------------------------------------------------------


def ask(application, path: str, method: str = "GET", query: bytes = b""):
    """The status and the text that *application* answers."""

    async def scene():
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query,
            "headers": [(b"host", b"localhost")],
        }
        visitor = ApplicationCommunicator(application, scope)
        await visitor.send_input({"type": "http.request"})
        start = await visitor.receive_output(10)
        body = await visitor.receive_output(10)
        return start["status"], body["body"].decode()

    return asyncio.run(scene())


@pytest.fixture
def hanging(watch, database):
    """An application whose every request hangs with the database."""

    async def application(_scope, _receive, send):
        database.answers.clear()
        await asyncio.Event().wait()

    return answering_without_database(application, watch)


def test_a_request_under_way_is_answered_when_the_database_falls_silent(hanging):
    status, text = ask(hanging, "/jobs/")
    assert status == 503
    assert "<h1>The database does not answer.</h1>" in text
    assert '<meta http-equiv="refresh"' in text


def test_an_open_page_gets_its_banner(hanging):
    status, text = ask(hanging, "/jobs/", query=b"regions=table")
    assert (status, text.startswith('<template data-for="banner">')) == (503, True)


def test_a_form_that_was_sent_is_not_sent_again_by_itself(hanging):
    status, text = ask(hanging, "/jobs/x/stop", method="POST")
    assert status == 503
    assert "refresh" not in text
    assert "Nothing is known of what you just did" in text


def test_a_program_gets_a_problem(hanging):
    status, text = ask(hanging, "/api/v1/jobs")
    assert status == 503
    assert '"code":"database-silent"' in text


def test_what_needs_no_database_is_answered_as_ever(watch, database):
    async def application(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})

    database.answers.clear()
    assert ask(answering_without_database(application, watch), "/healthz") == (200, "fine")


# --- pages of errors -----------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_page_that_met_the_outage_says_so_and_looks_again(client):
    client.raise_request_exception = False
    client.force_login(User.objects.create_superuser("ana"))
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '10ms'")
    blocker = connection.copy()
    try:
        with blocker.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("LOCK TABLE orchestrator_job")
            answer = client.get("/jobs/")
            cursor.execute("ROLLBACK")
    finally:
        blocker.close()
        connection.close()
    assert answer.status_code == 503
    assert "The database did not answer in time" in answer.content.decode()
    assert '<meta http-equiv="refresh"' in answer.content.decode()
