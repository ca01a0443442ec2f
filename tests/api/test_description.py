"""What the OpenAPI document says is what is answered."""

import re

import pytest

from orchestrator.api import schemas
from orchestrator.models import Evaluation, ExecutionOutput
from tests import rows

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


def test_every_address_but_three_needs_a_caller(api):
    document = api.get("openapi.json").json()
    open_ones = {
        path
        for path, methods in document["paths"].items()
        for operation in methods.values()
        if not operation.get("security")
    }
    assert open_ones == {"/api/v1/nodes/enrol", "/api/v1/schemas/job"}


@pytest.mark.parametrize(
    ("path", "required"), [("queue/pause", ["reason"]), ("nodes/enrol", ["token", "name"])]
)
def test_what_must_be_in_a_body_is_said_to_be_required(api, path, required):
    described = api.get("openapi.json").json()["paths"][f"/api/v1/{path}"]["post"]["requestBody"]
    assert described["required"]
    assert described["content"]["application/json"]["schema"]["required"] == required
    assert api.post(path, "{}", content_type="application/json").status_code == 400


def test_every_operation_is_described_in_a_sentence(api):
    for methods in api.get("openapi.json").json()["paths"].values():
        for operation in methods.values():
            assert re.match(r"[A-Z].*", operation["description"]), operation["operationId"]


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("jobs", schemas.page_of(schemas.Job)),
        ("jobs/shown", schemas.JobInFull),
        ("jobs/shown/versions", schemas.page_of(schemas.Version)),
        ("jobs/shown/executions", schemas.page_of(schemas.Execution)),
        ("jobs/shown/evaluations", schemas.page_of(schemas.Evaluation)),
        ("executions", schemas.page_of(schemas.Execution)),
        ("executions/{execution}", schemas.ExecutionInFull),
        ("nodes", schemas.page_of(schemas.Node)),
        ("nodes/machine", schemas.Node),
        ("evaluations", schemas.page_of(schemas.Evaluation)),
        ("evaluations/{evaluation}", schemas.EvaluationInFull),
        ("events", schemas.Events),
        ("events?last=3", schemas.Events),
        ("queue", schemas.Queue),
        ("status", schemas.Status),
    ],
)
def test_an_answer_has_the_shape_that_is_promised(api, path, schema):
    job = rows.job(name="shown", labels={"a": "b"})
    evaluation = Evaluation.objects.create(job=job, type="batch", priority=50, token=1)
    execution = rows.execution(job, rows.node(name="machine"), observed="completed")
    ExecutionOutput.objects.create(execution=execution, stdout="hello\n", stdout_size=6)
    api.post("jobs/shown/stop")
    answer = api.get(path.format(execution=execution.pk, evaluation=evaluation.pk))
    assert answer.status_code == 200
    schema.model_validate(answer.json())


@pytest.mark.parametrize(
    ("path", "body", "schema"),
    [
        ("jobs", SPEC, schemas.Submitted),
        ("jobs/batch", {"jobs": [SPEC]}, schemas.SubmittedMany),
        ("jobs/validate", SPEC, schemas.Valid),
        ("jobs/shown/stop", {"reason": "x"}, schemas.Job),
        ("jobs/shown/rerun", None, schemas.Job),
        ("nodes/machine/approve", None, schemas.Node),
        ("nodes/machine/reject", None, schemas.Node),
        ("nodes/machine/eligible", {"eligible": False, "reason": "x"}, schemas.Node),
        ("nodes/machine/drain", {"drain": True}, schemas.Node),
        ("nodes/join-tokens", {}, schemas.JoinToken),
        ("queue/pause", {"reason": "x"}, schemas.Queue),
        ("queue/resume", None, schemas.Queue),
    ],
)
def test_a_change_is_answered_in_the_shape_that_is_promised(api, path, body, schema):
    rows.job(name="shown")
    rows.node(name="machine")
    answer = api.post(path, body)
    assert answer.status_code in {200, 201}, answer.content
    schema.model_validate(answer.json())


def test_events_are_read_on_from_a_cursor(api):
    start = api.get("events?cursor=now").json()["cursor"]
    api.post("jobs", SPEC)
    # The test's own transaction is the oldest one running: what it wrote is not final yet.
    assert api.get(f"events?cursor={start}").json()["items"] == []
    assert api.get("events?last=5").json()["items"][-1]["what"] == "submit"
