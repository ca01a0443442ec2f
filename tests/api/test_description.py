"""What the OpenAPI document says is what is answered."""

import json
import re

import pytest
import schemathesis

from nodes.protocol.lifecycle import Approval, Connection
from orchestrator.lifecycle import Desired, EvaluationState, JobState, JobType, Observed, Writer
from orchestrator.models import Evaluation, ExecutionOutput
from tests import rows
from tests.api.documented import document

pytestmark = pytest.mark.django_db

SPEC = {"name": "a-job", "task": {"command": ["true"]}}


def test_the_document_is_openapi_3_1_and_open_to_all(api):
    document = type(api)().get("openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert "/api/v1/jobs/{ref}/stop" in document["paths"]
    assert document["paths"]["/api/v1/jobs"]["post"]["requestBody"]


def test_the_schema_of_a_job_file_is_served(api):
    schema = type(api)().get("schemas/job").json()
    assert schema["$schema"].endswith("2020-12/schema")
    assert "task" in schema["required"]


def test_every_address_needs_a_caller_but_those_for_agents_and_editors(api):
    document = api.get("openapi.json").json()
    open_ones = {
        path
        for path, methods in document["paths"].items()
        for operation in methods.values()
        if not operation.get("security")
    }
    assert open_ones == {
        "/api/v1/nodes/enrol",
        "/api/v1/nodes/credentials",
        "/api/v1/nodes/credentials/use",
        "/api/v1/schemas/job",
    }


@pytest.mark.parametrize(
    ("path", "name", "required"),
    [("queue/pause", "Pause", ["reason"]), ("nodes/enrol", "Enrolment", ["token", "name"])],
)
def test_what_must_be_in_a_body_is_said_to_be_required(api, path, name, required):
    described = document()["paths"][f"/api/v1/{path}"]["post"]["requestBody"]
    assert described["required"]
    schema = {"$ref": f"#/components/schemas/{name}"}
    assert described["content"] == {"application/json": {"schema": schema}}
    assert document()["components"]["schemas"][name]["required"] == required
    assert api.post(path, "{}", content_type="application/json").status_code == 400


def test_the_document_is_valid():
    schemathesis.openapi.from_dict(document()).validate()


def test_an_operation_names_its_headers_its_refusals_and_who_may():
    submit = document()["paths"]["/api/v1/jobs"]["post"]
    parameters = document()["components"]["parameters"]
    named = [
        it.get("name") or parameters[it["$ref"].rpartition("/")[2]]["name"]
        for it in submit["parameters"]
    ]
    assert sorted(named) == ["Idempotency-Key", "If-Match", "If-None-Match", "namespace"]
    refusals = {400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 500, 503}
    assert submit["responses"].keys() == {str(it) for it in {200, 201, *refusals}}
    assert submit["security"] == [{"token": ["submit"]}, {"session": [], "csrf": []}]


def test_everything_that_the_document_refers_to_is_there():
    text = json.dumps(document())
    for reference in set(re.findall(r'"#/([^"]+)"', text)):
        found = document()
        for part in reference.split("/"):
            found = found[part]


@pytest.mark.parametrize(
    ("schema", "field", "words"),
    [
        ("Job", "state", JobState),
        ("Job", "type", JobType),
        ("Execution", "desired", Desired),
        ("Execution", "observed", Observed),
        ("Node", "approval", Approval),
        ("Node", "connection", Connection),
        ("Evaluation", "state", EvaluationState),
        ("Transition", "writer", Writer),
    ],
)
def test_a_closed_set_of_words_is_enumerated(schema, field, words):
    described = document()["components"]["schemas"]
    name = described[schema]["properties"][field]["$ref"].rpartition("/")[2]
    assert sorted(described[name]["enum"]) == sorted(words)


def test_a_filter_enumerates_its_words_and_is_separated_by_commas():
    (found,) = [
        it
        for it in document()["paths"]["/api/v1/jobs"]["get"]["parameters"]
        if it.get("name") == "state"
    ]
    assert found["explode"] is False
    assert found["schema"]["items"] == {"$ref": "#/components/schemas/JobState"}


def test_every_operation_is_described_in_a_sentence(api):
    for methods in api.get("openapi.json").json()["paths"].values():
        for operation in methods.values():
            assert re.match(r"[A-Z].*", operation["description"]), operation["operationId"]


@pytest.mark.parametrize(
    "path",
    [
        "jobs",
        "jobs/shown",
        "jobs/shown/versions",
        "jobs/shown/executions",
        "jobs/shown/evaluations",
        "executions",
        "executions/{execution}",
        "nodes",
        "nodes/machine",
        "evaluations",
        "evaluations/{evaluation}",
        "events",
        "events?last=3",
        "queue",
        "status",
    ],
)
def test_an_answer_has_the_shape_that_is_promised(api, path):
    job = rows.job(name="shown", labels={"a": "b"})
    evaluation = Evaluation.objects.create(job=job, type="batch", priority=50)
    execution = rows.execution(job, rows.node(name="machine"), observed="completed")
    ExecutionOutput.objects.create(execution=execution, stdout="hello\n", stdout_size=6)
    api.post("jobs/shown/stop")
    answer = api.get(path.format(execution=execution.pk, evaluation=evaluation.pk))
    assert answer.status_code == 200  # The client holds it against the document.


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("jobs", SPEC),
        ("jobs/batch", {"jobs": [SPEC]}),
        ("jobs/validate", SPEC),
        ("jobs/shown/stop", {"reason": "x"}),
        ("jobs/shown/rerun", None),
        ("nodes/machine/approve", None),
        ("nodes/machine/reject", None),
        ("nodes/machine/labels", {"labels": {"pool": "a", "zone": None}}),
        ("nodes/machine/eligible", {"eligible": False, "reason": "x"}),
        ("nodes/machine/drain", {"drain": True}),
        ("nodes/join-tokens", {}),
        ("queue/pause", {"reason": "x"}),
        ("queue/resume", None),
    ],
)
def test_a_change_is_answered_in_the_shape_that_is_promised(api, path, body):
    rows.job(name="shown")
    rows.node(name="machine")
    answer = api.post(path, body)
    assert answer.status_code in {200, 201}, answer.content


def test_events_are_read_on_from_a_cursor(api):
    start = api.get("events?cursor=now").json()["cursor"]
    api.post("jobs", SPEC)
    # The test's own transaction is the oldest one running: what it wrote is not final yet.
    assert api.get(f"events?cursor={start}").json()["items"] == []
    assert api.get("events?last=5").json()["items"][-1]["what"] == "submit"
