"""A request that is sent again with its Idempotency-Key is done once, whatever it asks for."""

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from nodes import membership
from nodes.models import JoinToken, Node
from orchestrator.access import tokens
from orchestrator.models import Event, IdempotencyKey, Job, Namespace
from orchestrator.worker import housekeeping
from tests import rows
from tests.api.conftest import Api, spec

pytestmark = pytest.mark.django_db

#: A good request to every address that takes one.
VERBS = {
    "jobs": spec("new"),
    "jobs/batch": {"jobs": [spec("new")]},
    "jobs/{ref}/stop": {"reason": "enough"},
    "jobs/{ref}/rerun": None,
    "nodes/{ref}/approve": None,
    "nodes/{ref}/reject": None,
    "nodes/{ref}/labels": {"labels": {"pool": "prod"}},
    "nodes/{ref}/release": None,
    "nodes/{ref}": None,
    "nodes/{ref}/eligible": {"eligible": False},
    "nodes/{ref}/drain": {"drain": True},
    "nodes/join-tokens": {"uses": 3},
    "nodes/credentials": None,
    "nodes/credentials/use": None,
    "nodes/enrol": {"token": "{token}", "name": "newcomer"},
    "namespaces": {"name": "new"},
    "namespaces/{name}": None,
    "secrets/{name}": {"value": "hunter2-hunter2"},
    "queue/pause": {"reason": "repairs"},
    "queue/resume": None,
}

#: Of those that are not posted to.
METHODS = {"nodes/{ref}": "DELETE", "namespaces/{name}": "DELETE", "secrets/{name}": "PUT"}


@pytest.fixture
def asked(api):
    """Post to one of the addresses, all of which have something to work on."""
    rows.job(name="shown")
    rows.node(name="machine")
    Namespace.objects.create(pk="empty")
    token = api.post("nodes/join-tokens", {"uses": 2}).json()["token"]
    _, credential = membership.enrol(token, "talks")

    def post(path, *, parameters="", body=None, **headers):
        body = body or VERBS[path]
        if path == "nodes/enrol":
            body = {**body, "token": token}
        if path.startswith("nodes/credentials"):
            headers = {"Authorization": f"Node {credential}", **headers}
        named = path.format(ref="shown" if path.startswith("jobs") else "machine", name="empty")
        return api.post(named + parameters, body, method=METHODS.get(path, "POST"), **headers)

    return post


def test_the_table_has_every_address_that_changes_something(api):
    document = api.get("openapi.json").json()
    changing = {
        path.removeprefix("/api/v1/")
        for path, methods in document["paths"].items()
        if set(methods) - {"get"}
    }
    assert changing == VERBS.keys() | {"jobs/validate"}


@pytest.mark.parametrize("path", VERBS)
def test_a_repeat_changes_nothing_and_gets_the_first_answer(asked, path):
    first = asked(path, Idempotency_Key="k1")
    assert first.status_code in {200, 201}, first.content
    assert "Idempotency-Replayed" not in first
    events, tokens, nodes = Event.objects.count(), JoinToken.objects.count(), Node.objects.count()
    again = asked(path, Idempotency_Key="k1")
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert again["Idempotency-Replayed"] == "true"
    assert again["Cache-Control"] == first["Cache-Control"]
    assert again.get("ETag") == first.get("ETag")
    assert (Event.objects.count(), JoinToken.objects.count()) == (events, tokens)
    assert Node.objects.count() == nodes


@pytest.mark.parametrize("path", VERBS)
def test_a_change_takes_no_parameters(asked, path):
    events = Event.objects.count()
    said = asked(path, parameters="?dry_run=true")
    assert (said.status_code, said.json()["code"]) == (400, "invalid-parameter")
    assert said.json()["errors"][0]["path"] == "dry_run"
    assert Event.objects.count() == events


@pytest.mark.parametrize("path", METHODS)
def test_what_is_removed_is_removed_without_further_words(api, asked, path):
    said = asked(path, body={"force": True})
    assert (said.status_code, said.json()["errors"][0]["path"]) == (400, "force")


@pytest.mark.parametrize("path", ["nodes/join-tokens", "nodes/enrol"])
def test_a_secret_does_not_lie_in_the_table(asked, path):
    said = asked(path, Idempotency_Key="k1").json()
    secret = said.get("token") or said["credential"]
    kept = str(IdempotencyKey.objects.values().get())
    assert secret not in kept
    assert not re.search(r"\b[jna]t_", kept)


def test_an_answer_that_another_key_of_the_server_sealed_is_not_made_up(asked, settings):
    asked("nodes/join-tokens", Idempotency_Key="k1")
    settings.SECRET_KEY = "another"
    again = asked("nodes/join-tokens", Idempotency_Key="k1")
    assert (again.status_code, again.json()["code"]) == (409, "answer-lost")
    assert again.json()["hint"]


@pytest.mark.parametrize("names", [("ana", "ben"), ("x" * 149 + "a", "x" * 149 + "b")])
def test_nobody_gets_the_answer_of_somebody_else(django_user_model, names):
    answers = []
    for name in names:
        user = django_user_model.objects.create_superuser(name)
        secret = tokens.create(user=user, name="t", scopes=["admin"], expires_in=None)
        answers.append(Api(secret).post("nodes/join-tokens", {}, Idempotency_Key="k1"))
    first, second = (answer.json()["token"] for answer in answers)
    assert first != second
    assert not any("Idempotency-Replayed" in answer for answer in answers)


def test_no_node_gets_the_credential_of_another_node(api):
    """They are nobody's requests, as those of who signs in are not; their keys are their own."""
    token = api.post("nodes/join-tokens", {"uses": 2}).json()["token"]
    one, other = (membership.enrol(token, name)[1] for name in ("one", "other"))
    anybody, made = Api(), []
    for credential in (one, other):
        sign = {"Authorization": f"Node {credential}"}
        made.append(anybody.post("nodes/credentials", Idempotency_Key="k1", **sign))
    first, second = made
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() != second.json()
    unsigned = anybody.post("nodes/credentials", Idempotency_Key="k1")
    assert (unsigned.status_code, "Idempotency-Replayed" in unsigned) == (401, False)
    assert not re.search(r"\bnt_", str(list(IdempotencyKey.objects.values())))


@pytest.mark.parametrize("namespace", ["%00", "n" * 64, "*", "nowhere"])
def test_a_key_in_a_namespace_that_there_cannot_be_is_refused_as_without_one(api, namespace):
    path = f"jobs?namespace={namespace}"
    without, refused = (api.post(path, spec(), **key) for key in ({}, {"Idempotency_Key": "k1"}))
    assert without.status_code in {400, 404}
    assert refused.status_code == without.status_code, refused.content
    assert refused.json()["detail"] == without.json()["detail"]
    assert not IdempotencyKey.objects.exists()


def test_of_what_only_reads_nothing_is_kept(api):
    assert api.get("jobs", Idempotency_Key="k1").status_code == 200
    private = {"command": ["true"], "env": {"PASSWORD": "hunter2"}}
    for _ in range(2):
        answer = api.post("jobs/validate", spec(task=private), Idempotency_Key="k1")
        assert (answer.status_code, "Idempotency-Replayed" in answer) == (200, False)
    assert not IdempotencyKey.objects.exists()


def test_a_repeat_with_its_key_gets_the_same_answer(api):
    first = api.post("jobs", spec(), Idempotency_Key="k1")
    again = api.post("jobs", spec(), Idempotency_Key="k1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert again["Idempotency-Replayed"] == "true"
    assert Event.objects.filter(what="submit").count() == 1


def test_a_key_is_not_for_two_requests(api):
    api.post("jobs", spec(), Idempotency_Key="k1")
    other = api.post("jobs", spec("other"), Idempotency_Key="k1")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    elsewhere = api.post("jobs/a-job/rerun", Idempotency_Key="k1")
    assert elsewhere.status_code == 422
    assert Job.objects.get().round == 1


def test_a_key_is_not_for_another_condition(api):
    api.post("jobs", spec())
    asked = {"If_Match": api.get("jobs/a-job")["ETag"], "Idempotency_Key": "k1"}
    assert api.post("jobs/a-job/rerun", **asked).status_code == 200
    assert api.post("jobs/a-job/rerun", **asked)["Idempotency-Replayed"] == "true"
    for other in ({"If_Match": api.get("jobs/a-job")["ETag"]}, {}):
        said = api.post("jobs/a-job/rerun", Idempotency_Key="k1", **other)
        assert (said.status_code, said.json()["code"]) == (422, "idempotency-key-reused")
    assert api.post("jobs", spec("other"), Idempotency_Key="k2").status_code == 201
    creating = api.post("jobs", spec("other"), Idempotency_Key="k2", If_None_Match="*")
    assert creating.status_code == 422


def test_a_refused_request_does_not_use_its_key_up(api):
    assert api.post("jobs", spec(count=-1), Idempotency_Key="k1").status_code == 400
    assert api.post("jobs", spec(), Idempotency_Key="k1").status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "é"])
def test_a_key_is_plain_text(api, key):
    assert api.post("jobs", spec(), Idempotency_Key=key).status_code == 400
    assert not IdempotencyKey.objects.exists()


def test_a_rerun_repeated_with_its_key_happens_once(api):
    rows.job(name="again")
    for _ in range(3):
        api.post("jobs/again/rerun", Idempotency_Key="k1")
    assert Job.objects.get().round == 2


def test_forgetting_old_answers_reads_only_the_old_ones():
    indexes = {index.name: index.fields for index in IdempotencyKey._meta.indexes}
    assert indexes == {"answer_by_age": ["created_at"]}
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    with CaptureQueriesContext(connection) as asked:
        housekeeping.forget_answers()
    with connection.cursor() as cursor:
        [delete] = [it["sql"] for it in asked if it["sql"].startswith("DELETE")]
        cursor.execute(f"EXPLAIN {delete}")
        assert "answer_by_age" in str(cursor.fetchall())
