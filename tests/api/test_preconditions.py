"""Conditions: what is known is not sent again, what somebody else has changed is left alone."""

import time
from datetime import datetime, timedelta

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from nodes.models import NodeHeartbeat
from orchestrator.explain.reasons import Delayed, SlotFailed, dump
from orchestrator.models import ExecutionOutput, Job
from tests import rows
from tests.api.conftest import spec

pytestmark = pytest.mark.django_db


def tag_of(api, path):
    return api.get(path)["ETag"]


# --- reading ---------------------------------------------------------------------------------


def test_an_unchanged_job_is_not_sent_again(api):
    rows.job(name="tagged")
    tag = tag_of(api, "jobs/tagged")
    again = api.get("jobs/tagged", If_None_Match=tag)
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", tag)


@pytest.mark.parametrize("path", ["jobs", "nodes", "executions", "evaluations"])
def test_a_list_that_is_the_same_is_not_sent_again(api, path):
    rows.execution(rows.job(), rows.node())
    assert api.get(path, If_None_Match=tag_of(api, path)).status_code == 304


@pytest.mark.parametrize("condition", ["*", "W/{tag}", '"other", {tag}'])
def test_every_form_of_the_tag_says_that_it_is_known(api, condition):
    rows.job(name="tagged")
    tag = tag_of(api, "jobs/tagged")
    answer = api.get("jobs/tagged", If_None_Match=condition.format(tag=tag))
    assert answer.status_code == 304


@pytest.mark.parametrize("condition", ['"other"', "nonsense", 'W/"other"', ""])
def test_what_is_no_tag_of_it_gets_it_all(api, condition):
    rows.job(name="tagged")
    assert api.get("jobs/tagged", If_None_Match=condition).status_code == 200


def test_a_node_is_as_new_as_its_tag(api):
    node = rows.node()
    tag = tag_of(api, f"nodes/{node.name}")
    NodeHeartbeat.objects.filter(node=node).update(load=3.5)
    again = api.get(f"nodes/{node.name}", If_None_Match=tag)
    assert (again.status_code, again.json()["load"]) == (200, 3.5)


def test_an_execution_whose_output_comes_late_is_another(api):
    execution = rows.execution(rows.job(), rows.node(), observed="completed")
    tag = tag_of(api, f"executions/{execution.pk}")
    ExecutionOutput.objects.create(execution=execution, stdout="late")
    again = api.get(f"executions/{execution.pk}", If_None_Match=tag)
    assert (again.status_code, again.json()["output"]["stdout"]) == (200, "late")


def test_a_job_says_when_it_is_tried_again_and_not_in_how_long(api):
    later = timezone.now() + timedelta(minutes=5)
    last = SlotFailed(0, "c-01", 1, 3, exit_code=1, code="exit-code")
    rows.job(name="failing")
    Job.objects.update(state="queued", reason=dump([Delayed(1, later, last)]))
    answer = api.get("jobs/failing").json()
    assert (
        answer["sentence"]
        == answer["reason"]
        == (
            "slot 0 failed on c-01 at attempt 1 of 3: exit 1;"
            f" 1 slot is tried again at {later:%Y-%m-%d %H:%M:%S} UTC"
        )
    )
    [why] = answer["reasons"]
    assert (why["cause"], why["is"], why["last"]["exit_code"]) == ("delayed", "delayed", 1)
    assert datetime.fromisoformat(why["until"]) == later


def test_a_job_names_its_silent_nodes_to_who_looks_at_it(api):
    job, node = rows.job(name="a-job", state="running"), rows.node(name="local-3")
    rows.execution(job, node, observed="running")
    seen = timezone.now() - timedelta(seconds=53)
    NodeHeartbeat.objects.update(seen_at=seen)
    answer = api.get("jobs/a-job").json()
    assert f"the last word came at {seen:%Y-%m-%d %H:%M:%S} UTC" in answer["sentence"]
    assert [(it["cause"], it["node"]) for it in answer["reasons"]] == [("node silent", "local-3")]


def test_a_page_in_which_nothing_has_changed_is_not_sent_again(api, eventually):
    for name in ("a", "b"):
        rows.job(name=name)
    tag, second = tag_of(api, "jobs?limit=1"), int(time.time())
    eventually(lambda: int(time.time()) > second)
    assert api.get("jobs?limit=1", If_None_Match=tag).status_code == 304


def test_answers_are_for_who_asked_alone(api):
    rows.job(name="mine")
    for path in ("jobs", "jobs/mine", "jobs/nobody", "nonsense", "schemas/job"):
        assert api.get(path)["Cache-Control"] == "private, no-cache", path
    known = api.get("jobs/mine", If_None_Match="*")
    assert (known.status_code, known["Cache-Control"]) == (304, "private, no-cache")
    assert api.post("nodes/join-tokens", {})["Cache-Control"] == "no-store"


# --- changing --------------------------------------------------------------------------------


def test_a_submission_is_refused_unless_its_condition_holds(api):
    assert api.post("jobs", spec(), If_Match='"x"').status_code == 412
    assert api.post("jobs", spec(), If_None_Match="*").status_code == 201
    taken = api.post("jobs", spec(count=2), If_None_Match="*")
    assert (taken.status_code, taken.json()["detail"]) == (412, "There is a job a-job already.")
    tag = tag_of(api, "jobs/a-job")
    assert api.post("jobs", spec(count=3), If_Match=tag).status_code == 200
    stale = api.post("jobs", spec(count=4), If_Match=tag)
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition-failed")
    assert stale.json()["current_rev"] == Job.objects.get().rev
    assert Job.objects.get().count == 3


def test_who_has_seen_a_job_may_change_it_while_it_goes_on(api):
    job = rows.job(name="a-job")
    tag = tag_of(api, "jobs/a-job")
    Job.objects.filter(pk=job.pk).update(state="running", tally={"running": 1}, reason="going on")
    assert tag_of(api, "jobs/a-job") != tag
    assert api.post("jobs", spec(priority=60), If_Match=tag).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        lambda api: api.post("jobs", spec(count=2)),
        lambda api: api.post("jobs/a-job/rerun"),
        lambda api: api.post("jobs/a-job/stop"),
    ],
    ids=["updated", "run again", "stopped"],
)
@pytest.mark.parametrize(
    ("path", "body"),
    [("jobs", spec(count=9)), ("jobs/a-job/stop", {}), ("jobs/a-job/rerun", None)],
)
def test_what_somebody_else_has_changed_is_left_alone(api, change, path, body):
    rows.job(name="a-job")
    tag = tag_of(api, "jobs/a-job")
    assert change(api).status_code == 200
    before = Job.objects.values().get()
    assert api.post(path, body, If_Match=tag).status_code == 412
    assert Job.objects.values().get() == before


@pytest.mark.parametrize("path", ["jobs/a-job/stop", "jobs/a-job/rerun"])
def test_a_verb_whose_condition_holds_is_done(api, path):
    rows.job(name="a-job")
    assert api.post(path, If_Match=tag_of(api, "jobs/a-job")).status_code == 200
    assert api.post(path, If_Match="*").status_code == 200


def test_a_weak_tag_is_not_enough_for_a_change(api):
    rows.job(name="a-job")
    tag = tag_of(api, "jobs/a-job")
    assert api.post("jobs", spec(count=2), If_Match=f"W/{tag}").status_code == 412
    assert Job.objects.get().version == 1


def test_a_tag_of_another_job_is_no_tag_of_this_one(api):
    rows.job(name="a-job")
    rows.job(name="another")
    tag = tag_of(api, "jobs/another")
    assert api.post("jobs", spec(count=2), If_Match=tag).status_code == 412


def test_a_batch_that_only_creates_changes_nothing_that_is_there(api):
    rows.job(name="old")
    body = {"jobs": [spec("new"), spec("old", count=5)]}
    answer = api.post("jobs/batch", body, If_None_Match="*")
    assert (answer.status_code, answer.json()["detail"]) == (412, "There is a job old already.")
    assert list(Job.objects.values_list("name", "count")) == [("old", 1)]
    assert api.post("jobs/batch", {"jobs": [spec("new")]}, If_None_Match="*").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "condition"),
    [
        ("jobs/batch", {"jobs": [spec()]}, "If-Match"),
        ("jobs/validate", spec(), "If-None-Match"),
        ("jobs/a-job/stop", {}, "If-None-Match"),
        ("jobs/a-job/rerun", None, "If-None-Match"),
        ("nodes/machine/approve", None, "If-Match"),
        ("nodes/machine/drain", {}, "If-None-Match"),
        ("nodes/join-tokens", {}, "If-Match"),
        ("queue/pause", {"reason": "x"}, "If-Match"),
        ("queue/resume", None, "If-None-Match"),
    ],
)
def test_a_condition_that_means_nothing_is_refused(api, path, body, condition):
    rows.job(name="a-job")
    rows.node(name="machine")
    answer = api.post(path, body, **{condition: "*"})
    said = answer.json()
    assert (answer.status_code, said["code"]) == (400, "condition-unsupported")
    assert condition in said["detail"]
    assert said["hint"]


def test_only_a_star_says_that_a_job_must_not_be_there(api):
    rows.job(name="a-job")
    answer = api.post("jobs", spec(), If_None_Match=tag_of(api, "jobs/a-job"))
    assert (answer.status_code, answer.json()["code"]) == (400, "condition-unsupported")


def test_a_reading_that_must_match_is_refused_in_a_sentence(api):
    rows.job(name="a-job")
    answer = api.get("jobs/a-job", If_Match='"x"')
    assert (answer.status_code, answer.json()["code"]) == (412, "precondition-failed")


# --- HEAD ------------------------------------------------------------------------------------


def test_whatever_can_be_read_can_be_asked_for_its_head(api):
    job = rows.job(name="shown")
    execution = rows.execution(job, rows.node(name="machine"))
    NodeHeartbeat.objects.update(seen_at=Now())
    document = api.get("openapi.json").json()
    for path, methods in document["paths"].items():
        if "get" not in methods or "{number}" in path:
            continue
        name = {"jobs": "shown", "nodes": "machine"}.get(path.split("/")[3], str(execution.pk))
        address = path.removeprefix("/api/v1/").replace("{ref}", name)
        answer = api.head(address)
        assert (answer.status_code, answer.content) == (200, b""), path
        assert answer["X-Request-Id"]


def test_a_head_is_that_of_the_answer(api):
    rows.job(name="shown")
    whole, head = api.get("jobs/shown"), api.head("jobs/shown")
    for name in ("ETag", "Content-Type", "Content-Length", "Cache-Control"):
        assert head[name] == whole[name], name
    assert api.head("jobs/shown", If_None_Match=whole["ETag"]).status_code == 304
    assert api.head("jobs/nobody").status_code == 404
    refused = api.head("jobs/shown/stop")
    assert (refused.status_code, refused["Allow"]) == (405, "POST")
    assert api.post("jobs/shown")["Allow"] == "GET, HEAD"
