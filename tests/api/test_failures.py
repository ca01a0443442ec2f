"""What goes wrong on our side is a problem too, and gives nothing away."""

import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError, connection, transaction
from django.test import Client, RequestFactory
from django.utils import timezone

from orchestrator.access import tokens
from orchestrator.api import problems
from orchestrator.lifecycle import Desired, StopCause
from orchestrator.models import Job, WorkerProcess
from tests import rows


@pytest.mark.django_db
def test_a_mistake_of_ours_is_logged_and_not_shown(api, caplog):
    rows.job(name="broken")
    Job.objects.update(state="running", tally={"running": "no number"})
    answer = api.get("jobs/broken")
    said = answer.json()
    assert (answer.status_code, said["code"]) == (500, "internal")
    assert "Traceback" not in answer.content.decode()
    assert "no number" not in answer.content.decode()
    (record,) = [it for it in caplog.records if it.name == "orchestrator.api.problems"]
    assert record.exc_info
    assert said["request_id"] == answer["X-Request-Id"]


@pytest.mark.parametrize("error", [InterfaceError("connection already closed"), OperationalError()])
def test_a_connection_that_is_gone_is_busy(error):
    answer = problems.answer(RequestFactory().get("/api/v1/jobs"), error)
    assert (answer.status_code, answer["Retry-After"]) == (503, "1")


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (RequestFactory().get("/api/v1/jobs"), False),
        (RequestFactory().post("/api/v1/jobs"), True),
        (RequestFactory().post("/api/v1/jobs", headers={"Idempotency-Key": "k"}), False),
    ],
)
def test_who_may_change_something_twice_is_told_how_not_to(request_, told):
    said = json.loads(problems.answer(request_, OperationalError()).content)
    assert ("Idempotency-Key" in said["hint"]) is told


@pytest.mark.django_db(transaction=True)
def test_a_database_that_does_not_answer_in_time_is_busy(eventually):
    root = User.objects.create_superuser("root")
    secret = tokens.create(user=root, name="t", scopes=["admin"], expires_in=None)
    job = rows.job(name="held")
    other = connection.copy()
    try:
        with transaction.atomic(), other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT 1 FROM orchestrator_job WHERE id = %s FOR UPDATE", [job.pk])
            with connection.cursor() as ours:
                ours.execute("SET LOCAL lock_timeout = '50ms'")
            answer = Client(raise_request_exception=False).post(
                "/api/v1/jobs/held/stop",
                {},
                "application/json",
                headers={"Authorization": f"Bearer {secret}"},
            )
            cursor.execute("ROLLBACK")
    finally:
        other.close()
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert answer["Retry-After"] == "1"
    assert not Job.objects.get().stop_requested


@pytest.mark.django_db
def test_why_an_execution_was_lost_is_said_once(api):
    reason = "its node has been silent too long"
    lost = rows.execution(rows.job(), rows.node(), observed="lost", message=reason)
    assert api.get(f"executions/{lost.pk}").json()["sentence"] == reason


@pytest.mark.django_db
def test_why_an_execution_was_stopped_is_a_word_and_in_its_history_a_sentence_too(api):
    stopped = rows.execution(rows.job(), rows.node(), observed="running")
    rows.wish(stopped, Desired.STOPPED, StopCause.NEWER_VERSION)
    said = api.get(f"executions/{stopped.pk}").json()
    assert (said["stop_cause"], said["stop_detail"]) == ("newer_version", "test")
    last = said["history"][-1]
    assert (last["after"], last["cause"]) == ("stopped", "newer_version")
    assert last["reason"] == "the job has a newer version: test"
    assert {it["cause"] for it in said["history"][:-1]} == {""}
    [listed] = api.get("executions").json()["items"]
    assert listed["stop_cause"] == "newer_version"


@pytest.mark.django_db
@pytest.mark.parametrize("observed", ["cancelled", "lost", "ask_for_bid_rejected"])
def test_an_end_is_not_said_to_be_one_of_two(api, observed):
    said = "stopped on request; the task exited with code 0"
    for message in ("", said):
        ended = rows.execution(rows.job(), rows.node(), observed=observed, message=message)
        sentence = api.get(f"executions/{ended.pk}").json()["sentence"]
        assert sentence.endswith(message)
        assert " or " not in sentence


@pytest.mark.django_db
def test_the_status_says_that_nobody_evaluates(api):
    WorkerProcess.objects.create(name="elsewhere-1", host="elsewhere", pid=1)
    job = rows.job()
    rows.asked(job, timezone.now() - timedelta(minutes=1))
    status = api.get("status").json()
    assert status["ready"] is True
    assert status["warning"].startswith("Nobody evaluates: jobs have waited")
