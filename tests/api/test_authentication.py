import itertools
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.utils import timezone

from orchestrator.access import tokens
from orchestrator.models import ApiToken, Job
from tests import rows

pytestmark = pytest.mark.django_db

SPEC = {"name": "a-job", "task": {"command": ["true"]}}
CALLS = {
    "read": [("GET", "jobs"), ("GET", "nodes"), ("GET", "status"), ("GET", "events")],
    "submit": [("POST", "jobs/it/stop"), ("POST", "jobs/it/rerun"), ("POST", "jobs/batch")],
    "operate": [("POST", "nodes/machine/approve"), ("POST", "queue/resume")],
    "admin": [("POST", "nodes/join-tokens")],
}


def user(name="somebody", **flags):
    return User.objects.create_user(name, **flags)


def call(method, path, token=None, **headers):
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    client = Client(raise_request_exception=False)
    body = b"{}" if method == "POST" else b""
    return client.generic(
        method, f"/api/v1/{path}", body, content_type="application/json", headers=headers
    )


def status_of_all(token):
    """What each scope's calls answer: 'yes', or the status of the refusal."""
    rows.job(name="it")
    rows.node(name="machine", connection="disconnected", approval="pending")
    return {
        scope: {
            answer.status_code if answer.status_code in {401, 403} else "yes"
            for answer in (call(method, path, token) for method, path in calls)
        }
        for scope, calls in CALLS.items()
    }


@pytest.mark.parametrize("scope", tokens.SCOPES)
def test_a_scope_allows_what_it_says_and_what_stands_before_it(scope):
    root = User.objects.create_superuser("root")
    token = tokens.create(user=root, name="t", scopes=[scope], expires_in=None)
    rank = tokens.RANK[scope]
    assert status_of_all(token) == {
        other: {"yes"} if tokens.RANK[other] <= rank else {403} for other in tokens.SCOPES
    }


def test_neither_a_token_nor_a_session_may_more_than_the_user_may_on_the_pages():
    for flags in ({}, {"is_staff": True}):
        viewer = user(f"viewer-{len(flags)}", **flags)
        token = tokens.create(user=viewer, name="t", scopes=["admin"], expires_in=None)
        for method, path in itertools.chain(*(CALLS[scope] for scope in CALLS if scope != "read")):
            answer = call(method, path, token)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
        browser = Client()
        browser.force_login(viewer)
        assert browser.post("/api/v1/jobs/it/stop", b"{}", "application/json").status_code == 403
        assert call("GET", "jobs", token).status_code == 200


@pytest.mark.parametrize(
    ("permission", "allowed"),
    [
        ("change_job", {"jobs"}),
        ("change_node", {"nodes"}),
        ("change_clustersetting", {"queue"}),
        ("add_jointoken", {"nodes/join-tokens"}),
    ],
)
def test_each_permission_of_the_pages_opens_the_same_verbs_of_the_api(permission, allowed):
    somebody = user()
    somebody.user_permissions.add(Permission.objects.get(codename=permission))
    token = tokens.create(user=somebody, name="t", scopes=["admin"], expires_in=None)
    rows.job(name="it")
    rows.node(name="machine", connection="disconnected", approval="pending")
    verbs = {
        "jobs": "jobs/it/stop",
        "nodes": "nodes/machine/approve",
        "queue": "queue/resume",
        "nodes/join-tokens": "nodes/join-tokens",
    }
    answers = {name: call("POST", path, token) for name, path in verbs.items()}
    assert {name for name, answer in answers.items() if answer.status_code != 403} == allowed
    refused = [answer.json() for answer in answers.values() if answer.status_code == 403]
    assert all("lacks the permission" in problem["detail"] for problem in refused)


def test_a_refusal_names_the_scope_that_is_needed():
    root = User.objects.create_superuser("root")
    token = tokens.create(user=root, name="t", scopes=["read"], expires_in=None)
    answer = call("POST", "jobs", token)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "submit" in answer.json()["detail"]


def bad_tokens():
    somebody = user()
    good = tokens.create(user=somebody, name="good", scopes=["read"], expires_in=None)
    expired = tokens.create(
        user=somebody, name="expired", scopes=["read"], expires_in=timedelta(seconds=-1)
    )
    revoked = tokens.create(user=somebody, name="revoked", scopes=["read"], expires_in=None)
    tokens.revoke(ApiToken.objects.get(name="revoked").pk)
    gone = user("gone", is_active=False)
    return {
        "nothing": None,
        "expired": expired,
        "revoked": revoked,
        "of an inactive user": tokens.create(
            user=gone, name="gone", scopes=["read"], expires_in=None
        ),
        "cut short": good[:-1],
        "longer": good + "a",
        "of a node": "nt_" + good[3:],
        "of joining": "jt_" + good[3:],
        "unknown": "at_00000000_" + "x" * 43,
        "empty": "",
        "huge": "at_" + "x" * 100_000,
        "odd": "at_\x7f\x01",
    }


def test_every_bad_token_gets_the_same_answer():
    answers = {}
    for kind, secret in bad_tokens().items():
        answer = call("GET", "jobs", secret, **{"X-Request-Id": "same"})
        answers[kind] = (answer.status_code, answer.content, answer["WWW-Authenticate"])
    assert len(set(answers.values())) == 1, answers
    status, body, _ = answers["unknown"]
    assert status == 401
    assert b'"code":"unauthenticated"' in body


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "bearer  ", "Node nt_x", "\x00"])
def test_other_schemes_are_no_sign_in(header):
    assert call("GET", "jobs", Authorization=header).status_code == 401


def test_nothing_is_stored_for_who_is_not_let_in():
    for token in (None, "at_wrong"):
        client = Client(raise_request_exception=False)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        answer = client.post("/api/v1/jobs", SPEC, "application/json", headers=headers)
        assert answer.status_code == 401
    assert not Job.objects.exists()


def test_a_session_reads_and_a_change_needs_its_csrf_token():
    browser = Client(enforce_csrf_checks=True, raise_request_exception=False)
    browser.force_login(user(is_superuser=True))
    assert browser.get("/api/v1/jobs").status_code == 200
    refused = browser.post("/api/v1/jobs", SPEC, "application/json")
    assert (refused.status_code, refused.json()["code"]) == (403, "csrf")
    assert not Job.objects.exists()
    browser.get("/accounts/login/")
    secret = "x" * 32
    browser.cookies["csrftoken"] = secret
    done = browser.post("/api/v1/jobs", SPEC, "application/json", headers={"X-CSRFToken": secret})
    assert done.status_code == 201


def test_a_token_needs_no_csrf_token_and_makes_no_session():
    token = tokens.create(
        user=user(is_superuser=True), name="t", scopes=["submit"], expires_in=None
    )
    client = Client(enforce_csrf_checks=True)
    answer = client.post(
        "/api/v1/jobs", SPEC, "application/json", headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 201
    assert not answer.cookies


def test_a_bad_token_is_not_saved_by_a_session():
    browser = Client(raise_request_exception=False)
    browser.force_login(user())
    answer = browser.get("/api/v1/jobs", headers={"Authorization": "Bearer at_wrong"})
    assert answer.status_code == 401


def test_a_token_is_looked_up_once_for_many_requests(django_assert_num_queries):
    token = tokens.create(user=user(), name="t", scopes=["read"], expires_in=None)
    call("GET", "jobs", token)
    with django_assert_num_queries(1):
        call("GET", "jobs", token)


def test_a_revocation_elsewhere_is_noticed_within_seconds(eventually):
    token = tokens.create(user=user(), name="t", scopes=["read"], expires_in=None)
    assert call("GET", "jobs", token).status_code == 200
    ApiToken.objects.update(revoked_at=timezone.now())  # As another process would.
    eventually(lambda: call("GET", "jobs", token).status_code == 401, within=5)


def test_a_revocation_here_works_at_once():
    token = tokens.create(user=user(), name="t", scopes=["read"], expires_in=None)
    assert call("GET", "jobs", token).status_code == 200
    assert tokens.revoke(ApiToken.objects.get().pk)
    assert call("GET", "jobs", token).status_code == 401
    assert not tokens.revoke(ApiToken.objects.get().pk)


def test_a_token_says_when_it_was_last_used():
    token = tokens.create(user=user(), name="t", scopes=["read"], expires_in=None)
    assert ApiToken.objects.get().last_used_at is None
    call("GET", "jobs", token)
    assert ApiToken.objects.get().last_used_at is not None


@pytest.mark.parametrize("scopes", [[], ["everything"], ["read", "write"]])
def test_a_token_has_scopes_that_there_are(scopes):
    with pytest.raises(ValueError, match="scopes are read, submit, operate, admin"):
        tokens.create(user=user(), name="t", scopes=scopes, expires_in=None)


def test_only_a_digest_of_a_token_is_kept():
    secret = tokens.create(user=user(), name="t", scopes=["read"], expires_in=None)
    assert secret not in str(ApiToken.objects.values().get())


def test_the_command_makes_lists_and_revokes_tokens(capsys):
    user("alice")
    command = ["create", "--user", "alice", "--name", "ci", "--scope", "submit"]
    call_command("token", *command, "--expires-in", "12h")
    secret = capsys.readouterr().out.strip()
    assert tokens.authenticate(secret).name == "ci"
    call_command("token", "list")
    listed = capsys.readouterr().out
    assert "alice  ci  submit" in listed
    assert secret not in listed
    call_command("token", "revoke", secret[:11])
    assert tokens.authenticate(secret) is None


@pytest.mark.parametrize(
    "command",
    [
        ["create", "--user", "nobody", "--name", "x"],
        ["create", "--user", "alice", "--name", ""],
        ["create", "--user", "alice", "--name", "x", "--expires-in", "soon"],
        ["create", "--user", "alice", "--name", "x", "--scope", "write"],
        ["revoke", "00000000"],
        ["revoke", ""],
    ],
)
def test_the_command_refuses_in_a_sentence(command):
    user("alice")
    with pytest.raises(CommandError):
        call_command("token", *command)
    assert not ApiToken.objects.exists()
