"""Secrets over HTTP: put, listed, deleted; named by jobs; and no answer has a value."""

import json

import pytest

from orchestrator.access import tokens
from orchestrator.models import IdempotencyKey, Namespace
from tests import rows
from tests.api.conftest import Api, spec, token

pytestmark = pytest.mark.django_db

VALUE = "canary-hunter2"


@pytest.fixture(autouse=True)
def keys(settings, tmp_path):
    settings.SECRETS_KEY_FILE = tmp_path / "secrets_key"
    return settings.SECRETS_KEY_FILE


def put(api, name="token", value=VALUE, **headers):
    where, _, query = name.partition("?")
    path = f"secrets/{where}" + (f"?{query}" if query else "")
    return api.post(path, {"value": value}, method="PUT", **headers)


def using(name, job="a-job", **differing):
    return spec(job, **differing) | {"task": {"command": ["true"], "env": {"TOKEN": name}}}


def test_a_secret_is_put_listed_and_deleted_and_never_shown(api):
    made = put(api)
    assert (made.status_code, made.json()["created"], made.json()["version"]) == (201, True, 1)
    again, other = put(api), put(api, value="another one")
    assert (again.status_code, again.json()["changed"]) == (200, False)
    assert (other.json()["changed"], other.json()["version"]) == (True, 2)
    api.post("jobs", using("secret://token"))
    [listed] = api.get("secrets").json()["items"]
    assert (listed["name"], listed["namespace"], listed["used_by"]) == (
        "token",
        "default",
        ["a-job"],
    )
    assert (listed["created_by"], listed["updated_by"]) == ("user:root", "user:root")
    gone = api.post("secrets/token", method="DELETE")
    assert (gone.status_code, gone.json()["used_by"]) == (200, ["a-job"])
    assert api.post("secrets/token", method="DELETE").status_code == 404
    assert VALUE not in "".join(it.content.decode() for it in (made, again, other, gone))


def test_a_secret_is_created_only_when_that_is_asked(api):
    put(api)
    refused = put(api, value="another one", If_None_Match="*")
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition-failed")
    assert refused.json()["detail"] == "There is a secret token already."


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"value": 123456789}, "must be text"),
        ({"value": "12345"}, "has 5 characters, and may have 6 to 16384"),
        ({"value": "canary\0"}, "contains the unsupported character U+0000"),
        ({"value": VALUE, "name": "x"}, "is an unknown field 'name'"),
        ({}, "is missing"),
    ],
)
def test_what_is_refused_is_not_shown(api, body, said):
    refused = api.post("secrets/token", body, method="PUT")
    assert refused.status_code == 400
    assert said in refused.content.decode()
    assert not any(it in refused.content.decode() for it in ("123456789", "canary"))


def test_who_reads_the_database_cannot_guess_the_value_of_a_repeated_request(api):
    import hashlib

    assert put(api, Idempotency_Key="k").status_code == 201
    assert put(api, Idempotency_Key="k")["Idempotency-Replayed"] == "true"
    stored = IdempotencyKey.objects.get()
    body = json.dumps({"value": VALUE}).encode()
    guess = hashlib.sha256(b"PUT /api/v1/secrets/token\n" + body).hexdigest()
    assert stored.request_digest != guess
    assert VALUE not in json.dumps(stored.answer)


@pytest.mark.django_db(transaction=True)
def test_a_token_for_a_namespace_that_was_removed_is_good_nowhere(root):
    gone = {"name": "t", "scopes": ["admin"], "expires_in": None, "namespaces": ["gone"]}
    mine = Api(tokens.create(user=root, **gone))
    for refused in (put(mine, "token?namespace=gone"), mine.get("jobs?namespace=gone")):
        assert (refused.status_code, refused.json()["code"]) == (404, "not-found")


def test_a_job_that_names_no_secret_of_its_namespace_is_refused_with_the_nearest(api):
    put(api, "db-password")
    Namespace.objects.create(name="there")
    put(api, "token?namespace=there")
    for path in ("jobs", "jobs/validate"):
        refused = api.post(path, using("secret://db-pasword"))
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid-spec")
        assert refused.json()["errors"] == [
            {
                "path": "task.env.TOKEN",
                "message": "names the secret 'db-pasword', which the namespace default has not",
                "hint": "Did you mean secret://db-password?",
            }
        ]
    elsewhere = api.post("jobs", using("secret://token")).json()["errors"]
    assert elsewhere[0]["hint"] == "`muster secret put token -n default` makes it."
    assert api.post("jobs?namespace=there", using("secret://token")).status_code == 201
    batch = api.post("jobs/batch", {"jobs": [spec("a"), using("secret://token", "b")]})
    assert [it["path"] for it in batch.json()["errors"]] == ["jobs.1.task.env.TOKEN"]


def test_the_same_file_is_the_same_specification_whatever_the_value(api):
    put(api)
    api.post("jobs", using("secret://token"))
    put(api, value="another one")
    assert not api.post("jobs", using("secret://token")).json()["changed"]
    stored = api.get("jobs/a-job").json()["spec"]
    assert stored["task"]["env"] == {"TOKEN": "secret://token"}


def test_what_looks_like_a_secret_is_taken_with_a_warning_that_names_a_secret(api):
    rows.node()
    clear = using("hunter2-hunter2")
    for path in ("jobs/validate", "jobs"):
        [warning] = api.post(path, clear).json()["warnings"]
        assert (warning["path"], warning["secret"]) == ("task.env.TOKEN", "token")
        assert warning["message"] == "looks like a secret, and whoever sees the job can read it"
        assert "`muster secret put token`" in warning["hint"]
    in_words = spec("b") | {"task": {"command": ["x", "--key=AKIAIOSFODNN7EXAMPLE"]}}
    [warning] = api.post("jobs", in_words).json()["warnings"]
    assert (warning["path"], "secret" in warning) == ("task.command.1", False)


@pytest.mark.parametrize(
    ("role", "may_list", "may_put"),
    [("", 403, 403), ("viewer", 200, 403), ("submitter", 200, 403), ("operator", 200, 201)],
)
def test_operators_put_secrets_in_their_namespace_and_all_who_see_it_see_the_names(
    role, may_list, may_put
):
    mine = Api(token(rows.user("ana", role, "here"), "admin"))
    Namespace.objects.get_or_create(pk="here")
    Namespace.objects.create(name="there")
    assert mine.get("secrets?namespace=here").status_code == may_list
    assert put(mine, "token?namespace=here").status_code == may_put
    for other in ("there", "nowhere"):
        assert mine.get(f"secrets?namespace={other}").status_code == (404 if role else 403)
        assert put(mine, f"token?namespace={other}").status_code == (404 if role else 403)
    if role == "operator":
        assert put(mine, "token?namespace=*").status_code == 400
        scoped = Api(token(mine_user(), "submit"))
        assert put(scoped, "token?namespace=here").status_code == 403


def mine_user():
    from django.contrib.auth.models import User

    return User.objects.get(username="ana")
