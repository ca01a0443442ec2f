"""What is wrong with a request is said in our words: the field, the value, the cure."""

import pytest

from orchestrator.models import Job
from tests import rows
from tests.api.conftest import Api

pytestmark = pytest.mark.django_db

#: Words of the libraries that read requests for us.
FOREIGN = ("Input should", "Expected `", "Object ", "regex", "truncated", "recursion", "mistake(s)")


@pytest.mark.parametrize(
    ("address", "path", "message"),
    [
        ("jobs?limit=0", "limit", '"0" must be at least 1'),
        ("jobs?limit=501", "limit", '"501" must be at most 500'),
        ("jobs?limit=many", "limit", '"many" must be a whole number'),
        ("jobs?limit=1e3", "limit", '"1e3" must be a whole number'),
        ("jobs?limit=" + "9" * 5000, "limit", f'"{"9" * 56}… must be at most 500'),
        ("jobs?name=" + "x" * 64, "name", "is longer than 63 characters"),
        ("jobs?name=a%00", "name", "contains the unsupported character U+0000"),
        ("jobs?state=pending,,", "state", '"" must be one of pending, '),
        ("jobs?limit=1&limit=2", "limit", "is given twice"),
        ("events?limit=1&limit=2", "limit", "is given twice"),
        ("events?last=5&cursor=now", "last", "cannot be combined with cursor"),
        ("events?last=5&limit=1", "last", "cannot be combined with limit"),
        ("jobs?colour=red", "colour", "is an unknown parameter"),
        ("jobs/a-job/executions?slot=-1", "slot", '"-1" must be at least 0'),
        (
            "jobs/a-job/executions?slot=99999999999",
            "slot",
            f'"99999999999" must be at most {2**31 - 1}',
        ),
        ("jobs/a-job/logs?follow=perhaps", "follow", '"perhaps" must be true or false'),
        ("jobs/a-job/logs?stream=both", "stream", '"both" must be one of stdout, stderr'),
        ("executions/{execution}/logs?tail=5&offset=5", "tail", "cannot be combined with offset"),
    ],
)
def test_a_parameter_that_is_refused_says_what_it_may_be(api, address, path, message):
    execution = rows.execution(rows.job(name="a-job"), rows.node())
    answer = api.get(address.format(execution=execution.pk))
    said = answer.json()
    assert (answer.status_code, said["code"]) == (400, "invalid-parameter")
    (error,) = said["errors"]
    assert (error["path"], error["message"][: len(message)]) == (path, message)
    assert error["hint"]
    assert not any(word in answer.content.decode() for word in FOREIGN)


@pytest.mark.parametrize(
    ("address", "body", "path", "message"),
    [
        ("jobs/a-job/stop", b"[]", "", "must be an object"),
        ("jobs/a-job/stop", b"null", "", "must be an object"),
        ("jobs/a-job/stop", b'"x"', "", "must be an object"),
        ("jobs/a-job/stop", b'{"reason": 1}', "reason", "1 must be text"),
        ("jobs/a-job/stop", b'{"reasons": "x"}', "reasons", "is an unknown field"),
        ("jobs/a-job/stop", b'{"reason": "a", "reason": "b"}', "reason", "occurs twice"),
        ("jobs/a-job/stop", b'{"reason": 1, "reason": "b"}', "reason", "occurs twice"),
        ("jobs/a-job/stop", b'{"reason": "a\\u0000b"}', "reason", "contains the unsupported char"),
        ("jobs/a-job/stop", b'{"reason": "\\ud800"}', "reason", "contains the unsupported char"),
        ("queue/pause", b"{}", "reason", "is missing"),
        ("queue/pause", b'{"reason": ""}', "reason", "is empty"),
        ("queue/pause", b'{"reason": " "}', "reason", "is empty"),
        ("nodes/join-tokens", b'{"uses": 0}', "uses", "0 must be at least 1"),
        ("nodes/join-tokens", b'{"uses": 10001}', "uses", "10001 must be at most 10000"),
        ("nodes/join-tokens", b'{"uses": "3"}', "uses", '"3" must be a whole number'),
        ("nodes/join-tokens", b'{"uses": 1.5}', "uses", "1.5 must be a whole number"),
        ("nodes/join-tokens", b'{"uses": 1, "uses": 10000}', "uses", "occurs twice"),
        ("nodes/join-tokens", b'{"labels": {"a": 1}}', "labels.a", "1 must be text"),
        ("nodes/join-tokens", b'{"labels": {"a": "b", "a": "c"}}', "labels.a", "occurs twice"),
        ("nodes/join-tokens", b'{"auto_approve": "yes"}', "auto_approve", '"yes" must be true or'),
        ("nodes/join-tokens", b'{"label": "' + b"x" * 101 + b'"}', "label", "is longer than 100"),
        ("jobs/batch", b"{}", "jobs", "is missing"),
        ("jobs/batch", b'{"jobs": 5}', "jobs", "5 must be a list"),
        ("jobs/batch", b'{"jobs": []}', "jobs", "needs at least 1 entry"),
    ],
)
def test_a_body_that_is_refused_says_what_it_may_be(api, address, body, path, message):
    rows.job(name="a-job")
    answer = api.post(address, raw=body)
    said = answer.json()
    assert (answer.status_code, said["code"]) == (400, "invalid-parameter")
    (error,) = said["errors"]
    assert (error["path"], error["message"][: len(message)]) == (path, message)
    assert error["hint"]
    assert not any(word in answer.content.decode() for word in FOREIGN)


def test_a_flood_of_repeated_names_costs_and_says_little():
    """Anybody may send this: whoever enrols has no token of the API."""
    labels = ",".join(f'"{number % 10_000:x}":""' for number in range(20_000))
    answer = Api().post("nodes/enrol", raw=b'{"labels":{%s}}' % labels.encode())
    assert (answer.status_code, len(answer.json()["errors"])) == (400, 100)


def test_an_unknown_field_names_the_nearest(api):
    rows.job(name="a-job")
    (error,) = api.post("jobs/a-job/stop", {"reasn": "x"}).json()["errors"]
    assert error["hint"] == "Did you mean 'reason'?"
    (error,) = api.post("queue/resume", {"x": 1}).json()["errors"]
    assert error["hint"] == "Send {} or nothing."


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "The body is not JSON at line 1, column 2."),
        (b'{"reason":\n "x",}', "The body is not JSON at line 2, column 6."),
        (b'{"reason": "\xff"}', "The body is not UTF-8 at byte 12."),
        (b'\xef\xbb\xbf{"reason": "x"}', "The body begins with a byte order mark."),
        (b'{"reason": NaN}', "The body contains NaN, which is not JSON."),
    ],
)
def test_what_is_no_json_says_where(api, body, detail):
    rows.job(name="a-job")
    answer = api.post("jobs/a-job/stop", raw=body)
    said = answer.json()
    assert (answer.status_code, said["code"], said["detail"]) == (400, "invalid-json", detail)
    assert said["hint"]
    assert not Job.objects.get().stop_requested


@pytest.mark.parametrize(
    "body",
    [
        b'{"reason": 1, "x": ' + b"[" * 100_000,
        b'{"reason": 1, garbage',
        b'{"reason": 1, "x": "\xff"}',
        b'{"reason": 1' + b"0" * 5000 + b"}",
        b'{"reasons": {"reason": 1}}',
        b'\xef\xbb\xbf{"reason": "x"}',
        '{"reason": "x"}'.encode("utf-16"),
    ],
)
def test_a_body_with_several_mistakes_is_refused_for_one(api, body):
    rows.job(name="a-job")
    assert api.post("jobs/a-job/stop", raw=body).status_code == 400
    assert not Job.objects.get().stop_requested


@pytest.mark.parametrize("depth", [30, 500, 900, 950, 990, 1000, 2000])
def test_a_job_of_a_batch_is_nested_as_deep_as_one_may_be(api, depth):
    job = b'{"name": "x", "labels": ' + b"[" * depth + b"]" * depth + b"}"
    assert api.post("jobs/batch", raw=b'{"jobs": [' + job + b"]}").status_code == 400


@pytest.mark.parametrize("job", [b'"\xff"', b'"\\ud800"', b"NaN", b"1" + b"0" * 5000])
def test_a_job_of_a_batch_is_json(api, job):
    assert api.post("jobs/batch", raw=b'{"jobs": [' + job + b"]}").status_code == 400


def test_a_batch_is_not_nested_without_end(api):
    answer = api.post("jobs/batch", raw=b'{"jobs": ' + b"[" * 100_000)
    said = answer.json()
    assert (answer.status_code, said["code"]) == (400, "invalid-json")
    assert said["detail"] == "The body is nested deeper than 34 levels."


@pytest.mark.parametrize(
    ("count", "detail"),
    [
        ({"count": -1}, "The job specification has 1 mistake."),
        ({"count": -1, "priority": 0}, "The job specification has 2 mistakes."),
    ],
)
def test_mistakes_are_counted_as_people_count(api, count, detail):
    said = api.post("jobs", {"name": "a-job", "task": {"command": ["true"]}, **count}).json()
    assert said["detail"] == detail


@pytest.mark.parametrize(
    "path",
    [
        "events?cursor=" + "A" * 190,
        "events?cursor=%00",
        "evaluations/9999999999999999999",
        "evaluations/999999999999999999",
        "evaluations/" + "9" * 5000,
        "executions?node=%00",
        "jobs/%00",
        "jobs?cursor=%00",
        "jobs?name=%25",
        "nodes?approval=x",
        "executions?cursor=a:b:c",
        "jobs/....",
        "executions/ffff",
        "jobs/0000",
    ],
)
def test_no_address_is_a_mistake_of_ours(api, path):
    rows.job(name="x")
    answer = api.get(path)
    assert answer.status_code < 500, answer.content


@pytest.mark.parametrize(
    "body",
    [
        {"expires_in": 10**18},
        {"expires_in": 10**10},
        {"expires_in": -5},
        {"uses": 2**40},
        {"labels": {"a": "x" * 5000}},
        {"label": "x" * 200},
    ],
)
def test_no_join_token_is_a_mistake_of_ours(api, body):
    assert api.post("nodes/join-tokens", body).status_code == 400


@pytest.mark.parametrize("cursor", ["abc", "forged", "0:0:0", "%00"])
def test_a_cursor_of_events_that_is_not_ours_is_an_invalid_one(api, cursor):
    answer = api.get(f"events?cursor={cursor}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-cursor")
