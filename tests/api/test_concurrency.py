"""Many at once, over real connections: one answer per key, one job per name."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from threading import Event as Flag

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from orchestrator.access import tokens
from orchestrator.models import Event, IdempotencyKey, Job, JobVersion

pytestmark = pytest.mark.django_db(transaction=True)

AT_ONCE = 8


def spec(grace=1):
    return json.dumps({"name": "a-job", "grace": grace, "task": {"command": ["true"]}})


@pytest.fixture
def at_once():
    """Post all of these at the same moment; the answers, in their order."""
    root = User.objects.create_superuser("root")
    secret = tokens.create(user=root, name="t", scopes=["submit"], expires_in=None)
    gate = Barrier(AT_ONCE)

    def post(body, key):
        headers = {"Authorization": f"Bearer {secret}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        try:
            gate.wait(10)
            client = Client(raise_request_exception=False)
            return client.post("/api/v1/jobs", body, "application/json", headers=headers)
        finally:
            connection.close()

    def post_all(requests):
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(lambda it: post(*it), requests))

    return post_all


def test_one_key_gets_one_answer(at_once):
    answers = at_once([(spec(), "k1")] * AT_ONCE)
    assert {answer.status_code for answer in answers} == {201}
    assert all(answer.json() == answers[0].json() for answer in answers)
    assert sum("Idempotency-Replayed" in answer for answer in answers) == AT_ONCE - 1
    assert (Job.objects.count(), IdempotencyKey.objects.count()) == (1, 1)
    assert Event.objects.filter(what="submit").count() == 1


def test_one_key_with_different_bodies_is_good_for_one_of_them(at_once):
    answers = at_once([(spec(grace), "k1") for grace in range(AT_ONCE)])
    assert sorted(answer.status_code for answer in answers) == [201] + [422] * (AT_ONCE - 1)
    assert JobVersion.objects.count() == 1


def test_one_name_is_one_job(at_once):
    answers = at_once([(spec(), None)] * AT_ONCE)
    assert sorted(answer.status_code for answer in answers) == [200] * (AT_ONCE - 1) + [201]
    assert (Job.objects.count(), JobVersion.objects.count()) == (1, 1)


def test_different_versions_are_all_kept_in_some_order(at_once):
    answers = at_once([(spec(grace), None) for grace in range(AT_ONCE)])
    assert {answer.status_code for answer in answers} == {200, 201}
    assert sorted(answer.json()["version"] for answer in answers) == list(range(1, AT_ONCE + 1))
    assert Job.objects.get().version == AT_ONCE


class Held:
    """Holds a thread before a statement of its own, until it is let go."""

    def __init__(self, before):
        self.before, self.reached, self.go = before, Flag(), Flag()

    def __call__(self, execute, sql, params, many, context):
        if self.before in sql:
            self.reached.set()
            assert self.go.wait(10)
        return execute(sql, params, many, context)


def test_of_two_who_have_seen_the_same_one_changes_it(eventually):
    root = User.objects.create_superuser("root")
    secret = tokens.create(user=root, name="t", scopes=["submit"], expires_in=None)
    headers = {"Authorization": f"Bearer {secret}"}
    Client().post("/api/v1/jobs", spec(1), "application/json", headers=headers)
    headers["If-Match"] = Client().get("/api/v1/jobs/a-job", headers=headers)["ETag"]
    held = Held("INSERT INTO")

    def change(grace, hold):
        try:
            with connection.execute_wrapper(hold):
                client = Client(raise_request_exception=False)
                return client.post("/api/v1/jobs", spec(grace), "application/json", headers=headers)
        finally:
            connection.close()

    def one_waits():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            return cursor.fetchone()

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(change, 2, held)
        assert held.reached.wait(10)
        second = threads.submit(change, 3, lambda execute, *said: execute(*said))
        eventually(one_waits)
        held.go.set()
        assert (first.result(10).status_code, second.result(10).status_code) == (200, 412)
    assert Job.objects.get().version == 2
    assert JobVersion.objects.get(number=2).spec["grace"] == 2


def test_of_two_who_create_only_one_creates():
    root = User.objects.create_superuser("root")
    secret = tokens.create(user=root, name="t", scopes=["submit"], expires_in=None)
    headers = {"Authorization": f"Bearer {secret}", "If-None-Match": "*"}
    held = Held("INSERT INTO orchestrator_job")

    def late():
        try:
            with connection.execute_wrapper(held):
                client = Client(raise_request_exception=False)
                return client.post("/api/v1/jobs", spec(2), "application/json", headers=headers)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(late)
        assert held.reached.wait(10)
        first = Client().post("/api/v1/jobs", spec(1), "application/json", headers=headers)
        held.go.set()
        second = answer.result(10)
    assert (first.status_code, second.status_code) == (201, 412)
    assert second.json()["code"] == "precondition-failed"
    assert list(Job.objects.values_list("version", "count")) == [(1, 1)]
