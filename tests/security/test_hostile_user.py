"""Somebody with an account and little right tries what others may: at every door."""

import asyncio
import json

import pytest
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.consumers import LiveConsumer
from orchestrator.access import tokens
from orchestrator.models import (
    Evaluation,
    Event,
    Job,
    Namespace,
    RoleBinding,
    Secret,
    journal,
)
from tests import rows

pytestmark = pytest.mark.django_db

CANARY = "canary-of-another"


@pytest.fixture
def eve(db) -> User:
    """A submitter in the namespace here, and nothing else."""
    return rows.user("eve", "submitter", "here")


@pytest.fixture
def canary(db):
    """A job in another namespace, with one of everything that can tell of it."""
    job = rows.job(name=CANARY, namespace="there", labels={"of": CANARY})
    node = rows.node(name="machine")
    execution = rows.execution(job, node, observed="running")
    look = Evaluation.objects.create(
        job=job, type="batch", priority=50, state="complete", finished_at=timezone.now()
    )
    rows.dead_letter(job, CANARY)
    fact = {"job": job.pk, "execution": execution.pk, "node": node.pk}
    journal.record([journal.fact("job", "submit", f"ana submits {CANARY}", **fact)])
    Secret.objects.create(namespace_id="there", name=CANARY, sealed="-", created_by="user:ana")
    return {"job": job, "node": node, "execution": execution, "evaluation": look}


def api(user, scope="admin", **more):
    secret = tokens.create(user=user, name="t", scopes=[scope], expires_in=None, **more)
    client = Client(raise_request_exception=False)

    def call(method, path, body=None):
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {secret}"}
        return client.generic(
            method, f"/api/v1/{path}", content, content_type="application/json", headers=headers
        )

    return call


def browser(user):
    client = Client(headers={"host": "localhost"}, raise_request_exception=False)
    client.force_login(user)
    return client


def spec(name="mine", **differing):
    return {"name": name, "task": {"command": ["true"]}, **differing}


READS = (
    *("jobs?namespace=*", "executions?namespace=*", "evaluations?namespace=*"),
    *("events", "events?last=500", "events?namespace=*", "namespaces", "nodes", "nodes/machine"),
    *("secrets?namespace=*", "secrets?namespace=here"),
    *("status", "queue", "jobs?namespace=here", "jobs?namespace=*&name=canary", "jobs?name=canary"),
)
PAGES = (
    *(
        "/",
        "/jobs/",
        f"/jobs/?text={CANARY[:9]}",
        f"/jobs/?text={CANARY[:3]}",
        "/queue/",
        "/nodes/",
        "/secrets/",
        "/secrets/?namespace=here",
    ),
    *("/queue/?state=dead", "/queue/?state=ready", "/nodes/machine/", "/jobs/?namespace=there"),
)


def test_no_list_event_search_page_or_admin_tells_of_another_namespace(eve, canary):
    eve.is_staff = True
    eve.save()
    call, pages = api(eve), browser(eve)
    for path in READS:
        answer = call("GET", path)
        assert answer.status_code < 300 or "name=canary" in path, (path, answer.content)
        assert CANARY.encode() not in answer.content, path
        assert b"there" not in answer.content.replace(b"there is", b""), path
    for path in PAGES:
        answer = pages.get(path)
        assert answer.status_code == 200, path
        text = answer.content.decode().replace(f'value="{CANARY[:9]}"', "")
        assert CANARY not in text, path
    for model in ("job", "execution", "evaluation", "brokerrow", "event", "jobversion"):
        answer = pages.get(
            f"/admin/orchestrator/{model}/?q=canary"
            if model == "job"
            else f"/admin/orchestrator/{model}/"
        )
        assert answer.status_code == 200, model
        assert CANARY.encode() not in answer.content.replace(b'value="canary"', b""), model
    seen = api(User.objects.create_superuser("root"))
    assert CANARY.encode() in seen("GET", "events?last=500").content


@pytest.mark.parametrize("by", ["name", "id", "beginning"])
def test_what_may_not_be_seen_is_answered_as_what_is_not_there(eve, canary, by):
    job, call = canary["job"], api(eve)
    ref = {"name": CANARY, "id": str(job.pk), "beginning": job.pk.hex[:8]}[by]
    none = {"name": "x" * len(ref), "id": "0" * 32, "beginning": "00000000"}[by]
    call("GET", "jobs?namespace=here")  # Token and roles are believed from here on.
    for method, path, body in (
        ("GET", "jobs/{}?namespace=*", None),
        ("GET", "jobs/{}?namespace=there", None),
        ("GET", "jobs/{}/versions?namespace=there", None),
        ("GET", "jobs/{}/executions?namespace=there", None),
        ("GET", "jobs/{}/logs?namespace=there", None),
        ("POST", "jobs/{}/stop?namespace=there", {}),
        ("POST", "jobs/{}/rerun?namespace=there", {}),
    ):
        answers, queries = [], []
        for it in (ref, none):
            with CaptureQueriesContext(connection) as seen:
                answer = call(method, path.format(it), body)
            answers.append((answer.status_code, answer.json()["detail"].replace(it, "it")))
            queries.append(len(seen))
        assert answers[0] == answers[1] == (404, "There is no job 'it'."), path
        assert queries[0] == queries[1], path
    job.refresh_from_db()
    assert not job.stop_requested


def test_other_things_of_another_namespace_are_not_there_either(eve, canary):
    call, pages = api(eve), browser(eve)
    job, execution, look = canary["job"], canary["execution"], canary["evaluation"]
    for path in (
        f"executions/{execution.pk}",
        f"executions/{execution.pk}/logs",
        f"evaluations/{look.pk}",
        "jobs?namespace=there",
        "executions?namespace=there",
        "evaluations?namespace=there",
        "events?namespace=there",
        "secrets?namespace=there",
    ):
        assert call("GET", path).status_code == 404, path
    for name in (CANARY, "none"):
        for method, body in (("PUT", {"value": "another one"}), ("DELETE", None)):
            answer = call(method, f"secrets/{name}?namespace=there", body)
            assert answer.json()["detail"] == "There is no namespace 'there'."
    assert Secret.objects.get().version == 1
    task = {"command": ["env"], "env": {"STOLEN": f"secret://{CANARY}"}}
    [wrong] = call("POST", "jobs?namespace=here", spec(task=task)).json()["errors"]
    assert wrong["message"].endswith("which the namespace here has not")
    refused = call("POST", "jobs?namespace=there", spec())
    nowhere = call("POST", "jobs?namespace=xxxxx", spec())
    assert refused.status_code == nowhere.status_code == 404
    assert refused.json()["detail"].replace("there'", "xxxxx'") == nowhere.json()["detail"]
    for path in (
        f"/jobs/{job.pk}/",
        f"/jobs/{CANARY}/",
        f"/jobs/{job.pk}/definition/",
        f"/executions/{execution.pk}/",
        f"/evaluations/{look.pk}/",
    ):
        assert pages.get(path).status_code == 404, path
    for path in ("stop", "rerun", "evaluate", "retry", "drop"):
        assert pages.post(f"/jobs/{job.pk}/{path}", {"reason": "x"}).status_code == 404, path
    assert Job.objects.get().rev == job.rev


def test_another_ones_job_is_not_a_submitters_to_replace_stop_or_rerun(eve):
    ana = rows.user("ana", "submitter", "here")
    mine, theirs = api(eve), api(ana)
    assert theirs("POST", "jobs?namespace=here", spec("hers")).status_code == 201
    job = Job.objects.get()
    assert (job.namespace_id, job.created_by) == ("here", ana)
    for path, body in (
        ("jobs?namespace=here", spec("hers", count=7)),
        ("jobs/batch?namespace=here", {"jobs": [spec("hers", count=7)]}),
        ("jobs/hers/stop?namespace=here", {}),
        (f"jobs/{job.pk}/rerun", {}),
    ):
        answer = mine("POST", path, body)
        assert answer.status_code == 403, path
        assert "takes the role operator in the namespace here" in answer.json()["detail"]
    pages = browser(eve)
    asked = {"X-Requested-With": "muster"}
    stopped = pages.post(f"/jobs/{job.pk}/stop", {"reason": "x"}, headers=asked)
    assert stopped.status_code == 403
    assert 'disabled title="You may not' in pages.get(f"/jobs/{job.pk}/").content.decode()
    job.refresh_from_db()
    assert (job.version, job.stop_requested) == (1, False)
    rows.give(rows.user("olga"), "operator", "here")
    olga = api(User.objects.get(username="olga"))
    assert olga("POST", "jobs/hers/stop?namespace=here", {}).status_code == 200


def test_the_session_of_a_browser_may_no_more_at_the_api_than_on_the_pages(db):
    vera = browser(rows.user("vera", "viewer"))
    job, node = rows.job(), rows.node(approval="pending", connection="disconnected")
    for path, body in (
        ("jobs", spec()),
        (f"jobs/{job.name}/stop", {}),
        (f"jobs/{job.name}/rerun", {}),
        (f"nodes/{node.name}/approve", {}),
        (f"nodes/{node.name}/drain", {}),
        ("queue/pause", {"reason": "x"}),
        ("nodes/join-tokens", {}),
        ("namespaces", {"name": "new"}),
    ):
        answer = vera.post(f"/api/v1/{path}", body, "application/json")
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
    assert Job.objects.count() == 1


def test_who_has_no_role_sees_nothing_at_any_door(db, canary):
    nobody = rows.user("nobody")
    assert api(nobody)("GET", "jobs").status_code == 403
    pages = browser(nobody)
    for path in ("/", "/jobs/", "/nodes/", "/jobs/?regions=table", f"/jobs/{canary['job'].pk}/"):
        assert pages.get(path).status_code == 403, path
    assert pages.get(f"/api/v1/jobs/{CANARY}?namespace=there").status_code == 403


def test_a_token_of_one_namespace_is_nothing_in_another(db, canary):
    root = User.objects.create_superuser("root")
    Namespace.objects.create(pk="here")
    call = api(root, namespaces=["here"])
    assert call("GET", "jobs?namespace=*").json()["items"] == []
    assert call("GET", f"jobs/{CANARY}?namespace=there").status_code == 404
    assert call("POST", "jobs?namespace=here", spec()).status_code == 201
    assert call("POST", "queue/pause", {"reason": "x"}).status_code == 403
    assert CANARY.encode() not in call("GET", "events").content


def test_a_name_is_free_in_another_namespace_and_a_file_and_a_request_agree(eve):
    call = api(eve)
    rows.job(name="mine", namespace="there")
    made = call("POST", "jobs", spec(namespace="here"))
    assert (made.status_code, made.json()["namespace"]) == (201, "here")
    both = call("POST", "jobs?namespace=here", spec(namespace="there"))
    assert both.status_code == 400
    assert both.json()["errors"][0]["message"] == (
        "is there, but the request is for the namespace here"
    )
    assert Job.objects.filter(name="mine").count() == 2
    shown = call("GET", "jobs/mine?namespace=here").json()
    assert (shown["namespace"], "namespace" in shown["spec"]) == ("here", False)


def test_a_key_of_one_namespace_is_another_key_in_the_next(db):
    root = User.objects.create_superuser("root")
    Namespace.objects.create(pk="here")
    secret = tokens.create(user=root, name="t", scopes=["admin"], expires_in=None)
    headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": "k"}
    for path in ("jobs", "jobs?namespace=here"):
        for _ in range(2):
            answer = Client().post(f"/api/v1/{path}", spec(), "application/json", headers=headers)
            assert answer.status_code == 201, answer.content
    assert Job.objects.count() == 2


def test_a_role_that_is_taken_away_is_gone_at_once_here(eve):
    call = api(eve)
    assert call("GET", "jobs?namespace=here").status_code == 200
    RoleBinding.objects.get(user=eve).delete()
    assert call("GET", "jobs?namespace=here").status_code == 403


def test_namespaces_are_made_by_admins_and_removed_when_empty(db):
    call = api(User.objects.create_superuser("root"))
    assert call("POST", "namespaces", {"name": "new"}).status_code == 201
    assert call("POST", "namespaces", {"name": "new"}).status_code == 409
    assert call("POST", "namespaces", {"name": "New!"}).status_code == 400
    assert call("POST", "jobs?namespace=new", spec()).status_code == 201
    for name in ("new", "default"):
        assert call("DELETE", f"namespaces/{name}").status_code == 409, name
    assert call("DELETE", "namespaces/none").status_code == 404
    assert call("POST", "namespaces", {"name": "empty"}).status_code == 201
    assert call("DELETE", "namespaces/empty").status_code == 200
    listed = call("GET", "namespaces").json()["items"]
    assert [(it["name"], it["role"]) for it in listed] == [("default", "admin"), ("new", "admin")]
    assert Event.objects.filter(what="namespace-create").count() == 2


@pytest.mark.django_db(transaction=True)
def test_who_is_given_the_name_of_a_removed_namespace_reads_nothing_of_that_one(eve, eventually):
    root, node = api(User.objects.create_superuser("root")), rows.node(name="machine")
    for what in (CANARY, "news"):
        assert root("POST", "namespaces", {"name": "team"}).status_code == 201
        told = f"team: {what}"
        journal.record([journal.fact("secret", "put", told, namespace="team", node=node.pk)])
        if what == CANARY:
            assert root("DELETE", "namespaces/team").status_code == 200
    rows.give(eve, "admin", "team")
    User.objects.filter(pk=eve.pk).update(is_staff=True)
    call, pages = api(eve), browser(eve)
    eventually(lambda: b"news" in call("GET", "events").content)
    for door in ("events", "events?last=500", "events?namespace=team", "events?namespace=*"):
        found = call("GET", door).content
        assert b"news" in found, door
        assert CANARY.encode() not in found, door
    for page in ("/", "/?namespace=team", "/nodes/machine/", "/admin/orchestrator/event/"):
        found = pages.get(page).content
        assert b"news" in found, page
        assert CANARY.encode() not in found, page
    assert CANARY.encode() in root("GET", "events").content, "who sees all sees what was, too"
    assert CANARY.encode() not in root("GET", "events?namespace=team").content


@pytest.mark.parametrize("others", [[], ["here"]])
def test_a_token_for_a_removed_namespace_is_none_for_the_next_of_its_name(db, others):
    user = User.objects.create_superuser("root")
    root, call = api(user), api(user, namespaces=["team", *others])
    Namespace.objects.create(pk="here")
    for verb, *rest in (("POST", "namespaces", {"name": "team"}), ("DELETE", "namespaces/team")):
        assert root(verb, *rest).status_code < 300
        assert call("GET", "secrets?namespace=*").status_code == (
            401 if verb == "DELETE" and not others else 200
        )
    assert root("POST", "namespaces", {"name": "team"}).status_code == 201
    assert call("GET", "jobs?namespace=team").status_code == (404 if others else 401)
    assert call("GET", "jobs?namespace=here").status_code == (200 if others else 401)
    assert call("GET", "jobs").status_code == (404 if others else 401)


def test_what_was_answered_in_a_removed_namespace_is_not_said_of_the_next(db):
    user = User.objects.create_superuser("root")
    secret = tokens.create(user=user, name="t", scopes=["admin"], expires_in=None)
    root, headers = api(user), {"Authorization": f"Bearer {secret}", "Idempotency-Key": "k"}
    for _ in range(2):
        assert root("POST", "namespaces", {"name": "team"}).status_code == 201
        path = "/api/v1/secrets/key?namespace=team"
        put = Client().put(path, {"value": CANARY}, "application/json", headers=headers)
        assert put.status_code < 300, put.content
        assert "Idempotency-Replayed" not in put.headers
        assert Secret.objects.get().namespace_id == "team"
        assert root("DELETE", "namespaces/team").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_the_feed_passes_over_what_is_not_seen_and_does_not_come_back_to_it(
    eve, canary, eventually
):
    call, root = api(eve), api(User.objects.create_superuser("root"))
    journal.record([journal.fact("cluster", "pause", "the queue is paused")])

    def feed(until, query=""):
        # It is no newer than the oldest transaction that writes events.
        def look():
            found = call("GET", f"events{query}").json()
            return found if until(found) else None

        return eventually(look)

    read = feed(lambda it: it["items"])
    assert [it["message"] for it in read["items"]] == ["the queue is paused"]
    assert [it["namespace"] for it in root("GET", "events").json()["items"]] == ["there", None]
    journal.record([journal.fact("job", "stop", f"ana stops {CANARY}", job=canary["job"].pk)])
    passed = feed(lambda it: it["cursor"] != read["cursor"], f"?cursor={read['cursor']}")
    assert passed["items"] == []
    call("POST", "jobs?namespace=here", spec())
    for cursor in (read["cursor"], passed["cursor"]):
        news = feed(lambda it: it["items"], f"?cursor={cursor}")
        assert [it["message"] for it in news["items"]] == ["eve submits mine"]


def test_an_admin_of_a_namespace_gives_roles_there_and_nowhere_else(db):
    ada = rows.user("ada", "admin", "here", is_staff=True)
    bob = rows.user("bob")
    pages = browser(ada)
    made = {"user": bob.pk, "group": "", "namespace": "here", "role": "viewer"}
    Namespace.objects.create(pk="there")
    for namespace in ("", "there"):
        pages.post("/admin/orchestrator/rolebinding/add/", {**made, "namespace": namespace})
    assert not bob.roles.exists()
    pages.post("/admin/orchestrator/rolebinding/add/", made)
    assert [it.namespace_id for it in bob.roles.all()] == ["here"]
    olga = browser(rows.user("olga", "operator", is_staff=True))
    assert olga.post("/admin/orchestrator/rolebinding/add/", made).status_code == 403


@pytest.mark.django_db(transaction=True)
def test_a_socket_follows_no_log_of_another_namespace(canary):
    eve = rows.user("eve", "viewer", "here")

    async def follow():
        socket = WebsocketCommunicator(LiveConsumer.as_asgi(), "/live")
        socket.scope["user"] = eve
        assert (await socket.connect())[0]
        hello = json.loads(await socket.receive_from())
        assert hello["type"] == "hello"
        ask = {"type": "follow", "id": 1, "execution": str(canary["execution"].pk)}
        await socket.send_to(json.dumps({**ask, "stream": "stdout", "offset": 0}))
        while (said := json.loads(await socket.receive_from()))["type"] != "end":
            pass
        await socket.disconnect()
        return said

    said = asyncio.run(follow())
    assert said == {
        "type": "end",
        "id": 1,
        "why": "this execution is no longer there",
        "again": False,
    }
