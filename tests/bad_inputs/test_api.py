"""The HTTP API: every address that takes a body, a parameter or a name, and what it refuses."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from tests import rows
from tests.api import documented
from tests.api.conftest import Api
from tests.bad_inputs import harm
from tests.bad_inputs.table import case, tries

pytestmark = pytest.mark.django_db

FOREIGN = ("Traceback", "Expected `", "Input should", "regex", "truncated", "recursion", "SQL")
NO_JSON, NO_SPEC, NO_PARAMETER = "invalid-json", "invalid-spec", "invalid-parameter"


def addresses(method: str) -> dict[str, dict]:
    """The operations of a *method*, by address, as the description of the API has them."""
    found = documented.document()["paths"].items()
    return {
        path.removeprefix("/api/v1/"): its[method] for path, its in sorted(found) if method in its
    }


@pytest.fixture
def place(api) -> SimpleNamespace:
    """What addresses may name, and whoever may do everything to it."""
    node = rows.node(name="a-node")
    job = rows.job(name="a-job")
    execution = rows.execution(job, node, observed="running")
    return SimpleNamespace(api=api, job=job, node=node, execution=execution)


def named(place, path: str) -> str:
    kind = path.partition("/")[0].removesuffix("s")
    thing = getattr(place, kind, None)
    name = str(thing.pk) if kind == "execution" else getattr(thing, "name", "1")
    return path.replace("{ref}", name).replace("{number}", "1").replace("{name}", "nothing")


def refused(answer, status: int, code: str, path: str | None = None, says: str = "") -> dict:
    """Fail unless *answer* is that problem, of *path* among others, in words of ours."""
    said = answer.json()
    assert (answer.status_code, said["code"]) == (status, code), said
    assert answer["Content-Type"] == "application/problem+json"
    assert not any(word in answer.content.decode() for word in FOREIGN), said
    errors = {it["path"]: it for it in said.get("errors", [])}
    if path is None:
        assert says in said["detail"] + said.get("hint", "")
    else:
        assert says in errors[path]["message"], said
        assert errors[path]["hint"]
    return said


# --- bodies ----------------------------------------------------------------------------------

JOBS = ("jobs", "jobs/validate")
BODIES = [it for it, operation in addresses("post").items() if "requestBody" in operation]

#: What no body may be: of each, what is said, of which field, and the code where it is no job.
UNSOUND = (
    (1, "list", b"[]", "", "must be an object", NO_PARAMETER),
    (1, "text", b'"x"', "", "must be an object", NO_PARAMETER),
    (1, "null", b"null", "", "must be an object", NO_PARAMETER),
    (1, "number", b"5", "", "must be an object", NO_PARAMETER),
    (2, "cut", b"{", None, "is not JSON at line 1, column 2", NO_JSON),
    (2, "comma", b'{"a": 1,\n}', None, "is not JSON at line", NO_JSON),
    (2, "garbage", b"{} x", None, "is not JSON at line 1, column 4", NO_JSON),
    (2, "single quotes", b"{'a': 1}", None, "is not JSON at line 1, column 2", NO_JSON),
    (2, "control character", b'{"a": "\n"}', None, "is not JSON at line 1, column 8", NO_JSON),
    (6, "mark", b"\xef\xbb\xbf{}", None, "", NO_JSON),
    (6, "utf-16", '{"a": 1}'.encode("utf-16"), None, "", NO_JSON),
    (6, "bytes", b'{"a": "\xff"}', None, "is not UTF-8 at byte 7", NO_JSON),
    (6, "encoded surrogate", b'{"a": "\xed\xa0\x80"}', None, "is not UTF-8 at byte 7", NO_JSON),
    (7, "lists", b"[" * 100_000, None, "nested deeper", NO_JSON),
    (7, "objects", b'{"a":' * 40 + b"1" + b"}" * 40, None, "nested deeper", NO_JSON),
    (7, "not closed", b'{"a":' * 50_000, None, "nested deeper", NO_JSON),
    (8, "twice", b'{"a": 1, "a": 2}', "a", "occurs twice", NO_PARAMETER),
    (8, "twice, deep", b'{"a": {"b": 1, "b": 2}}', "a.b", "occurs twice", NO_PARAMETER),
    (9, "NaN", b'{"a": NaN}', None, "NaN", NO_JSON),
    (9, "-Infinity", b'{"a": -Infinity}', None, "-Infinity", NO_JSON),
    (9, "1e999", b'{"a": 1e999}', "a", "is not a finite number", NO_PARAMETER),
    (12, "digits", b'{"a": ' + b"9" * 5000 + b"}", None, "5000 digits", NO_JSON),
    (17, "nul", b'{"a": "\\u0000"}', "a", "unsupported character U+0000", NO_PARAMETER),
    (17, "nul in a name", b'{"a\\u0000": 1}', "a\ufffd", "character U+0000", NO_PARAMETER),
    (17, "surrogate", b'{"a": "\\ud800"}', "a", "unsupported character U+D800", NO_PARAMETER),
    (17, "surrogate in a name", b'{"\\udfff": 1}', "\ufffd", "character U+DFFF", NO_PARAMETER),
    (18, "unknown", b'{"contraints": []}', "contraints", "is an unknown field", NO_PARAMETER),
    (18, "of an object", b'{"__class__": {}}', "__class__", "is an unknown field", NO_PARAMETER),
)


@pytest.mark.parametrize(
    ("body", "path", "says", "code"),
    [case(row, what, *expected) for row, what, *expected in UNSOUND],
)
def test_what_is_unsound_is_refused_by_every_address(place, harmless, body, path, says, code):
    with harmless() as each:
        for address in BODIES:
            with each(address):
                answer = place.api.post(named(place, address), raw=body)
                if address in JOBS:
                    refused(answer, 400, NO_SPEC, path or "", says)
                else:
                    refused(answer, 400, code, path, says)


@pytest.mark.parametrize(
    "headers",
    [
        case(3, "text", {"Content_Type": "text/plain"}),
        case(3, "nothing", {"Content_Type": ""}),
        case(3, "yaml", {"Content_Type": "application/x-yaml"}),
        case(3, "form", {"Content_Type": "application/x-www-form-urlencoded"}),
        case(3, "multipart", {"Content_Type": "multipart/form-data; boundary=x"}),
        case(3, "latin-1", {"Content_Type": "application/json; charset=latin-1"}),
        case(5, "gzip", {"Content_Encoding": "gzip"}),
        case(5, "br", {"Content_Encoding": "br, identity"}),
    ],
)
def test_only_plain_json_is_read(place, harmless, headers):
    with harmless() as each:
        for address in BODIES:
            with each(address):
                answer = place.api.post(named(place, address), raw=b'{"a": 1}', **headers)
                refused(answer, 415, "unsupported-media-type")


BENT = [
    case(10, "true", "nodes/join-tokens", {"uses": True}, "uses", "true must be a whole number"),
    case(10, "quoted", "nodes/join-tokens", {"uses": "3"}, "uses", '"3" must be a whole number'),
    case(10, "3.0", "nodes/join-tokens", {"uses": 3.0}, "uses", "3.0 must be a whole number"),
    case(10, "null", "nodes/join-tokens", {"uses": None}, "uses", "null must be a whole number"),
    case(10, "-1", "nodes/join-tokens", {"uses": -1}, "uses", "-1 must be at least 1"),
    case(10, "1", "nodes/a-node/drain", {"drain": 1}, "drain", "1 must be true or false"),
    case(10, "yes", "nodes/a-node/eligible", {"eligible": "yes"}, "eligible", "must be true or"),
    case(12, "10**18", "nodes/join-tokens", {"uses": 10**18}, "uses", "must be at most 10000"),
    case(12, "long", "nodes/join-tokens", {"expires_in": 10**9}, "expires_in", "at most 2592000"),
    case(14, "empty", "namespaces", {"name": ""}, "name", '"" is not a name'),
    case(14, "path", "namespaces", {"name": "../x"}, "name", "is not a name"),
    case(14, "upper", "namespaces", {"name": "A"}, "name", "is not a name"),
    case(14, "newline", "namespaces", {"name": "job\n"}, "name", "is not a name"),
    case(14, "long", "namespaces", {"name": "a" * 64}, "name", "longer than 63 characters"),
    case(15, "wide", "namespaces", {"name": "\uff4aob"}, "name", "is not a name"),
    case(15, "reversed", "namespaces", {"name": "a\u202eb"}, "name", "is not a name"),
    case(16, "script", "namespaces", {"name": "<script>"}, "name", "is not a name"),
    case(20, "4 kB", "jobs/a-job/stop", {"reason": "x" * 4097}, "reason", "longer than 500"),
    case(20, "501 jobs", "jobs/batch", {"jobs": [{}] * 501}, "jobs", "more than 500 entries"),
    case(20, "no job", "jobs/batch", {"jobs": []}, "jobs", "needs at least 1 entry"),
    case(20, "text", "jobs/batch", {"jobs": "x"}, "jobs", '"x" must be a list'),
    case(17, "labels", "nodes/a-node/labels", {"labels": {"a": "\0"}}, "labels.a", "U+0000"),
    case(10, "labels", "nodes/a-node/labels", {"labels": {"a": 1}}, "labels.a", "1 must be text"),
    case(1, "no labels", "nodes/a-node/labels", {}, "labels", "is missing"),
    case(104, "long", "nodes/enrol", {"token": "x", "name": "x" * 600}, "name", "than 500"),
    case(104, "no name", "nodes/enrol", {"token": "x"}, "name", "is missing"),
    case(102, "no token", "nodes/enrol", {"name": "x"}, "token", "is missing"),
    case(102, "number", "nodes/enrol", {"token": 5, "name": "x"}, "token", "5 must be text"),
    case(
        106, "64 kB", "nodes/enrol", {"token": "x", "name": "x", "key": "k" * 65536}, "key", "500"
    ),
]


@pytest.mark.parametrize(("address", "body", "path", "says"), BENT)
def test_each_bad_field_is_named(place, harmless, address, body, path, says):
    with harmless():
        answer = place.api.post(address, body)
    refused(answer, 400, NO_PARAMETER, path, says)


@tries(18)
def test_all_mistakes_of_a_body_are_named_at_once(place, harmless):
    bad = {"uses": 0, "expires_in": "soon", "labels": {"a": 1, "b": 2}, "auto_aprove": True}
    with harmless():
        answer = place.api.post("nodes/join-tokens", bad)
    errors = {it["path"]: it for it in answer.json()["errors"]}
    assert set(errors) == {"uses", "expires_in", "labels.a", "labels.b", "auto_aprove"}
    assert errors["auto_aprove"]["hint"] == "Did you mean 'auto_approve'?"


@tries(19)
def test_a_name_occurs_once_in_a_batch(place, harmless):
    job = {"name": "twin", "task": {"command": ["true"]}}
    with harmless():
        answer = place.api.post("jobs/batch", {"jobs": [job, {**job, "count": 2}]})
    refused(answer, 400, NO_SPEC, "jobs.1.name", "'twin' is that of jobs.0, too")


@tries(4)
def test_a_body_has_an_end(place, harmless):
    with harmless() as each:
        for address in BODIES:
            largest = 1024 * 1024 if address == "jobs/batch" else 256 * 1024
            with each(address):
                answer = place.api.post(named(place, address), raw=b" " * (largest + 1))
                refused(answer, 413, "too-large")


@pytest.mark.parametrize(
    ("differing", "path", "says"),
    [
        case(28, "root", {"task": {"run_as": "root"}}, "task.run_as", "all rights"),
        case(28, "#0", {"task": {"run_as": "#0"}}, "task.run_as", "not the name of a user"),
        case(28, "0 and a space", {"task": {"run_as": "0 "}}, "task.run_as", "not the name"),
        case(28, "config", {"task": {"config": {"user": "root"}}}, "task.config.user", "unknown"),
        case(29, "privileged", {"task": {"config": {"privileged": "1"}}}, "task.config.privileged", "unknown"),
        case(29, "image", {"task": {"config": {"image": "x"}}}, "task.config.image", "unknown"),
        case(29, "host pid", {"task": {"pid": "host"}}, "task.pid", "unknown field"),
        case(29, "devices", {"task": {"devices": ["/dev/sda"]}}, "task.devices", "unknown field"),
        case(27, "path", {"task": {"driver": "../x"}}, "task.driver", "is not a name"),
    ],
)  # fmt: skip
def test_a_job_asks_for_no_rights_of_the_node(place, harmless, differing, path, says):
    task = {"command": ["true"], **differing.pop("task")}
    with harmless():
        answer = place.api.post("jobs", {"name": "bad", "task": task, **differing})
    refused(answer, 400, NO_SPEC, path, says)


@pytest.mark.parametrize(
    ("differing", "warned"),
    [
        case(11, "nothing", {"count": 0}, None),
        case(23, "more than any node has", {"resources": {"cpu": 10_000}}, None),
        case(25, "unknown label", {"constraints": ["colour = red"]}, "constraints.0"),
        case(25, "contradiction", {"constraints": ["x = 1", "x = 2"]}, "constraints.1"),
        case(27, "driver", {"driver": "no-such"}, "task.driver"),
        case(16, "markup", {"labels": {"a": '"><img onerror=alert(1)>'}}, None),
    ],
)
def test_what_is_only_odd_is_taken_and_warned_of(place, differing, warned):
    task = {it: differing.pop(it) for it in ("resources", "driver") if it in differing}
    body = {"name": "odd", "task": {"command": ["true"], **task}, **differing}
    answer = place.api.post("jobs", body)
    assert answer.status_code == 201, answer.content
    paths = {it["path"] for it in answer.json()["warnings"]}
    assert warned is None or warned in paths


# --- parameters and names ----------------------------------------------------------------------

READS = addresses("get")
PARAMETERS = [
    (address, it["name"], it["schema"])
    for address, operation in READS.items()
    for it in operation.get("parameters", ())
    if it.get("in") == "query"
]


def values_for(schema: dict) -> tuple[int, list[str]]:
    """The row, and values that a parameter of this *schema* may not have."""
    schema = next((it for it in schema.get("anyOf", ()) if it.get("type") != "null"), schema)
    if schema.get("type") == "integer":
        texts = ["-1", "abc", "1e3", "1.5", "", "%201", "0x10", "9" * 30, "9" * 5000, "%00"]
        return 50, [*texts, "%D9%A3"]
    if schema.get("type") == "boolean":
        return 50, ["1", "yes", "TRUE", "", "%00"]
    if schema.get("type") == "array" or "enum" in schema:
        return 50, ["nonsense", "a,,b", "%00", "x" * 10_000, "';--"]
    return 52, ["%00", "x" * 10_000]


@pytest.mark.parametrize(
    ("address", "name", "values"),
    [
        case(row, f"{address}?{name}", address, name, [*values, f"1&{name}=2"])
        for address, name, schema in PARAMETERS
        for row, values in [values_for(schema)]
    ]
    + [
        case(51, name, address, name, ["x"])
        for address in ("jobs", "executions", "nodes", "evaluations", "events", "namespaces")
        for name in ("sort", "job__user__password__startswith", "filter[job__user]", "__class__")
    ],
)
def test_each_bad_parameter_is_named(place, harmless, address, name, values):
    with harmless() as each:
        for value in values:
            with each(value[:20]):
                answer = place.api.get(f"{named(place, address)}?{name}={value}")
                assert answer.status_code in {400, 404}, answer.status_code
                said = answer.json()
                assert not any(word in answer.content.decode() for word in FOREIGN), said
                assert said.get("hint") or all(it["hint"] for it in said["errors"])
                if said["code"] == NO_PARAMETER:
                    assert name in {it["path"] for it in said["errors"]}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        case(50, "0", "jobs?limit=0", NO_PARAMETER),
        case(50, "501", "jobs?limit=501", NO_PARAMETER),
        case(50, "forged", "jobs?cursor=eyJhIjoxfQ:abc", "invalid-cursor"),
        case(50, "of events", "events?cursor=abc", "invalid-cursor"),
        case(61, "negative", "executions/{execution}/logs?offset=-5", NO_PARAMETER),
        case(61, "huge", "executions/{execution}/logs?offset=" + "9" * 30, NO_PARAMETER),
        case(61, "both", "executions/{execution}/logs?tail=5&offset=5", NO_PARAMETER),
        case(61, "after", "jobs/a-job/logs?after=x:1", NO_PARAMETER),
    ],
)
def test_a_range_that_is_none_is_refused(place, harmless, query, code):
    with harmless():
        answer = place.api.get(query.format(execution=place.execution.pk))
    refused(answer, 400, code)


@tries(50)
def test_a_cursor_of_another_list_is_refused(place, harmless):
    for number in range(3):
        rows.job(name=f"more-{number}")
    cursor = place.api.get("jobs?limit=1").json()["next_cursor"]
    with harmless():
        refused(place.api.get(f"executions?cursor={cursor}"), 400, "invalid-cursor")
        refused(place.api.get(f"jobs?name=more&cursor={cursor}"), 400, "invalid-cursor")


@tries(52)
@pytest.mark.parametrize("text", ["%25", "_", "more-%25", "'", "%22;--", "\\\\"])
def test_what_is_looked_for_is_taken_literally(place, harmless, text):
    rows.job(name="more-1")
    with harmless():
        answer = place.api.get(f"jobs?name={text}")
    assert answer.json()["items"] == []


NAMES = {
    "nul": "%00",
    "dots": "%2e%2e",
    "parameter": "a-job;a=b",
    "slash": "a%2Fb",
    "newline": "a-job%0A",
    "surrogate": "%ED%A0%80",
    "bytes": "%FF",
    "long": "x" * 2000,
    "wide": "%EF%BD%8A",
    "pattern": "%25",
}


@pytest.mark.parametrize("name", [case(58, what, name) for what, name in NAMES.items()])
def test_no_name_is_a_mistake_of_ours(place, harmless, name):
    with harmless() as each:
        for method in ("get", "post", "delete"):
            for address in (it for it in addresses(method) if "{" in it):
                path = address.replace("{ref}", name).replace("{name}", name)
                body = b'{"labels": {}}' if address.endswith("labels") else b"{}"
                with each(f"{method} {address}"):
                    answer = place.api.post(path, raw=body, method=method.upper())
                    assert answer.status_code in {404, 405}, answer.content
                    assert answer.json()["detail"]


@tries(55)
@pytest.mark.parametrize("host", ["evil.example", "a b", "[::1", "x" * 300, "localhost\x00"])
def test_no_other_host_is_answered_to(place, harmless, host):
    with harmless():
        answer = place.api.get("jobs", Host=host)
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown-host")


@tries(59)
def test_what_has_stopped_stops_again_without_a_trace(place, harmless):
    assert place.api.post("jobs/a-job/stop", {"reason": "x"}).status_code == 200
    with harmless():
        assert place.api.post("jobs/a-job/stop", {"reason": "x"}).status_code == 200


@tries(4, 7, 12)
def test_bad_input_keeps_no_memory(db, monkeypatch):
    """Also what is near the limit of a body, and anybody may send."""
    # Pytest keeps the records, and these the requests that they are about.
    monkeypatch.setattr(logging.getLogger("django.request"), "disabled", True)
    texts = (
        b"[" * 250_000,
        b'{"a":' + b"9" * 250_000 + b"}",
        b'{"a": "%s"}' % (b"\\u0000" * 40_000),
    )
    anybody = Api()
    for text in texts * 15:  # Until what was freed is enough for the next.
        anybody.post("nodes/enrol", raw=text)
    before = harm.resident()
    for text in texts * 60:
        anybody.post("nodes/enrol", raw=text)
    assert harm.resident() - before < 8 * 2**20
