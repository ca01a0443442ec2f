"""Rows of the list of bad inputs: a code and a sentence each, nothing stored, nothing harmed."""

import json

import pytest
from django.test import Client

from nodes.models import JoinToken, Node
from orchestrator.models import BrokerTrigger, Event, Job
from tests import pace, rows

pytestmark = pytest.mark.django_db

GOOD = {"name": "a-job", "task": {"command": ["true"]}}


def bent(**differing):
    return json.dumps({**GOOD, **differing}).encode()


def task(**differing):
    return bent(task={"command": ["true"], **differing})


NOT_A_SPEC = {
    "1 empty": b"",
    "1 list": b"[]",
    "1 text": b'"x"',
    "1 null": b"null",
    "2 cut": b"{",
    "2 comma": b'{"name": "x",}',
    "2 garbage": b"{} x",
    "6 mark": b"\xef\xbb\xbf{}",
    "6 utf-16": '{"name": "x"}'.encode("utf-16"),
    "6 bytes": b'{"name": "\xff"}',
    "7 deep": b"[" * 100_000,
    "7 objects": b'{"a":' * 33 + b"1" + b"}" * 33,
    "8 twice": b'{"name": "x", "count": 1, "count": 1000000, "task": {"command": ["true"]}}',
    "9 nan": b'{"name": "x", "count": NaN, "task": {"command": ["true"]}}',
    "9 infinite": b'{"name": "x", "count": 1e999, "task": {"command": ["true"]}}',
    "10 true": bent(count=True),
    "10 quoted": bent(count="3"),
    "10 fraction": bent(count=1.5),
    "10 whole fraction": bent(count=3.0),
    "10 negative": bent(count=-1),
    "12 huge": bent(count=10**18),
    "12 digits": b'{"count": ' + b"9" * 5000 + b"}",
    "13 zero": bent(priority=0),
    "13 more": bent(priority=101),
    "13 word": bent(priority="high"),
    **{
        f"14 {name!r}": bent(name=name)
        for name in ("", "x" * 64, "../x", "a/b", ".", "-a", "A", " job", "job\n")
    },
    "15 wide": bent(name="\uff4aob"),
    "15 cyrillic": bent(name="j\u043eb"),
    "15 reversed": bent(name="job\u202e"),
    "16 script": bent(name="<script>alert(1)</script>"),
    "17 nul": bent(labels={"a": "x\0y"}),
    "17 nul in a key": bent(labels={"a\0": "x"}),
    "17 surrogate": b'{"name": "x", "labels": {"a": "\\ud800"}, "task": {"command": ["true"]}}',
    "18 misspelt": bent(contraints=[]),
    "20 constraints": bent(constraints=["a=b"] * 65),
    "20 labels": bent(labels={f"l{n}": "x" for n in range(1000)}),
    "21 key": task(env={"A=B": "x"}),
    "21 empty key": task(env={"": "x"}),
    "21 preload": task(env={"LD_PRELOAD": "x"}),
    "21 large": task(env={"A": "x" * 100_000}),
    "22 nothing": task(resources={"memory": 0}),
    "22 one byte": task(resources={"memory": 1}),
    "22 too much": task(resources={"memory": "10EiB"}),
    "22 comma": task(resources={"memory": "1,5G"}),
    "24 pattern": bent(constraints=["a =~ ^(a+)+$"]),
    "26 weight": bent(affinities=[{"match": "a=b", "weight": 0}]),
    "26 nan": b'{"name":"x","task":{"command":["true"]},"spread":[{"over":"a","weight":NaN}]}',
    "39 attempts": bent(retry={"attempts": 10**9}),
    "39 delay": bent(retry={"delay": 0}),
    "40 negative": bent(grace=-1),
    "40 years": bent(grace="3650d"),
}


@pytest.mark.parametrize("body", NOT_A_SPEC.values(), ids=NOT_A_SPEC)
def test_what_is_no_job_is_refused_with_every_mistake(api, body):
    with pace.within(1):
        answer = api.post("jobs", raw=body)
    said = answer.json()
    assert (answer.status_code, said["code"]) == (400, "invalid-spec")
    assert answer["Content-Type"] == "application/problem+json"
    assert said["errors"]
    assert all({"path", "message", "hint"} <= it.keys() for it in said["errors"])
    assert said["request_id"] == answer["X-Request-Id"]
    assert not Job.objects.exists()
    assert not BrokerTrigger.objects.exists()


def test_all_mistakes_are_named_at_once(api):
    answer = api.post("jobs", {"name": "A", "count": -1, "contraints": [], "task": {}})
    paths = {it["path"]: it for it in answer.json()["errors"]}
    assert set(paths) == {"name", "count", "contraints", "task.command"}
    assert "constraints" in paths["contraints"]["hint"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "", "application/x-yaml", "multipart/form-data", "application/json-x"]
)
def test_only_json_is_read(api, kind):
    answer = api.post("jobs", GOOD, Content_Type=kind)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "application/json;charset=UTF8"]
)
def test_json_may_name_its_charset(api, kind):
    assert api.post("jobs", GOOD, Content_Type=kind).status_code == 201


def test_other_charsets_are_not_read(api):
    answer = api.post("jobs", GOOD, Content_Type="application/json; charset=latin-1")
    assert answer.status_code == 415


def test_compressed_requests_are_not_read(api):
    answer = api.post("jobs", raw=b"\x1f\x8b\x08", Content_Encoding="gzip")
    assert answer.status_code == 415


@pytest.mark.parametrize("size", [256 * 1024 + 1, 1024 * 1024 + 1, 3 * 1024 * 1024])
def test_large_bodies_are_not_read(api, size):
    answer = api.post("jobs", raw=b" " * size)
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


@pytest.mark.parametrize("length", ["10737418240", "abc", "-1", "1e3", "9" * 5000, "٣"])
def test_a_claimed_length_is_looked_at_first(api, length):
    headers = {**api.headers}
    answer = Client(raise_request_exception=False).generic(
        "POST",
        "/api/v1/jobs",
        b"{}",
        content_type="application/json",
        headers=headers,
        CONTENT_LENGTH=length,
    )
    assert answer.status_code in {400, 413}
    assert answer.json()["code"] in {"bad-request", "too-large"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "nonsense", 404),
        ("GET", "jobs/", 404),
        ("GET", "/admin", 404),
        ("GET", "jobs/a/b/c", 404),
        ("GET", "jobs/%2e%2e/", 404),
        ("DELETE", "jobs", 405),
        ("PUT", "jobs/x", 405),
        ("TRACE", "jobs", 405),
        ("NONSENSE", "jobs", 405),
        ("GET", "jobs/x/stop", 405),
    ],
)
def test_wrong_addresses_and_methods_are_problems_too(api, method, path, status):
    client = Client(raise_request_exception=False)
    answer = client.generic(method, f"/api/v1/{path}", headers=api.headers)
    assert answer.status_code == status
    if method != "TRACE":
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == status
    if status == 405:
        assert answer["Allow"]


def test_a_method_is_not_overridden_by_a_header(api):
    rows.job(name="stays")
    answer = api.get("jobs/stays", X_HTTP_Method_Override="DELETE")
    assert answer.status_code == 200
    assert Job.objects.exists()


@pytest.mark.parametrize("given", ["abc-1.2_3", "x" * 65, "a b", "a\r\nSet-Cookie: x", ""])
def test_a_request_id_is_given_back_if_it_is_one(api, given):
    answer = api.get("jobs", X_Request_Id=given)
    assert (answer["X-Request-Id"] == given) == (given == "abc-1.2_3")
    assert len(answer["X-Request-Id"]) <= 64


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'"x"',
        b"{",
        b'{"reason": 1}',
        b'{"reasons": "x"}',
        json.dumps({"reason": "x" * 501}).encode(),
        json.dumps({"reason": "x\0y"}).encode(),
        b'{"reason": "\xff"}',
        b"[" * 100_000,
    ],
)
def test_a_verb_takes_what_it_says_and_nothing_else(api, body):
    rows.job(name="goes-on")
    answer = api.post("jobs/goes-on/stop", raw=body)
    assert answer.status_code == 400
    assert answer.json()["code"] in {"invalid-json", "invalid-parameter"}
    assert not Job.objects.get().stop_requested


@pytest.mark.parametrize(
    "body",
    [
        {"uses": 0},
        {"uses": "many"},
        {"expires_in": 1},
        {"expires_in": 10**12},
        {"labels": {"a b": "c"}},
        {"labels": {"name": "c"}},
        {"labels": {"node.arch": "c"}},
        {"labels": {"a": "x\0"}},
        {"label": "x\0"},
        {"auto_approve": "yes"},
        {"usess": 1},
    ],
)
def test_a_join_token_is_asked_for_properly(api, body):
    answer = api.post("nodes/join-tokens", body)
    assert answer.status_code == 400
    assert answer.json()["code"] in {"invalid-parameter", "invalid-labels", "reserved-label"}
    assert not JoinToken.objects.exists()


def test_a_node_joins_with_its_token_alone(api):
    token = api.post("nodes/join-tokens", {"labels": {"zone": "a"}}).json()["token"]
    anybody = type(api)()
    joined = anybody.post("nodes/enrol", {"token": f" {token}\n", "name": "machine"})
    assert joined.status_code == 201
    assert joined.json()["node"] == str(Node.objects.get().pk)
    assert joined.json()["credential"].startswith("nt_")
    assert (joined.json()["approval"], Node.objects.get().labels) == ("pending", {"zone": "a"})
    again = anybody.post("nodes/enrol", {"token": token, "name": "other"})
    assert (again.status_code, again.json()["code"]) == (401, "join-refused")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"token": "jt_wrong", "name": "machine"}, 401),
        ({"token": "", "name": "machine"}, 401),
        ({"token": "jt_\0", "name": "machine"}, 400),
        ({"token": "jt_wrong", "name": "<b>"}, 400),
        ({"token": "jt_wrong", "name": "x" * 300}, 400),
        ({"token": "jt_wrong", "name": "m\0"}, 400),
        ({"token": "jt_wrong"}, 400),
        ({"token": "jt_wrong", "name": "machine", "labels": {"a": 1}}, 400),
        ({"token": "x" * 100_000, "name": "machine"}, 400),
        ([], 400),
    ],
)
def test_a_bad_enrolment_is_refused(api, body, status):
    answer = type(api)().post("nodes/enrol", body)
    assert answer.status_code == status, answer.content
    assert not Node.objects.exists()


@pytest.mark.parametrize("cursor", ["forged", "x" * 201, "bm9uc2Vuc2U", "%00", "0:0:0"])
def test_a_cursor_of_events_is_one_of_ours(api, cursor):
    answer = api.get(f"events?cursor={cursor}")
    assert answer.status_code in {400, 409}
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "query", ["offset=-5", "offset=1e3", "stream=both", "tail=-1", "follow=perhaps", "grep=x"]
)
def test_a_log_is_asked_for_properly(api, query):
    execution = rows.execution(rows.job(), rows.node())
    assert api.get(f"executions/{execution.pk}/logs?{query}").status_code == 400


@pytest.mark.parametrize("number", ["x", "-1", "1.0", "9" * 30, "999999"])
def test_an_unknown_evaluation_is_not_found(api, number):
    assert api.get(f"evaluations/{number}").status_code == 404


def test_a_pause_has_a_reason_and_is_told(api):
    assert api.post("queue/pause", {}).status_code == 400
    assert api.post("queue/pause", {"reason": ""}).status_code == 400
    paused = api.post("queue/pause", {"reason": "maintenance"}).json()
    assert (paused["paused"], paused["paused_reason"], paused["paused_by"]) == (
        True,
        "maintenance",
        "user:root",
    )
    assert api.get("status").json()["queue"]["paused"]
    assert not api.post("queue/resume").json()["paused"]
    assert Event.objects.filter(topic="cluster").count() == 2


@pytest.mark.parametrize(
    "name", ["team-a\n", "\nteam-a", "team\na", "Team", "*", "-a", "", "a" * 64]
)
def test_a_namespace_is_called_as_a_job_is(api, name):
    assert api.post("namespaces", {"name": name}).status_code == 400
