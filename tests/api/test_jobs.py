import json
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.explain import reasons
from orchestrator.explain.formatting import clock
from orchestrator.models import (
    Event,
    Execution,
    Job,
    JobVersion,
    RemovedHistory,
    periods,
    spec_cache,
)
from orchestrator.scheduling.world import Progress
from tests import rows

pytestmark = pytest.mark.django_db


def spec(name="a-job", **differing):
    return {"name": name, "task": {"command": ["true"]}, **differing}


def test_a_new_job_is_created_and_says_so(api):
    answer = api.post("jobs", spec())
    assert answer.status_code == 201
    said = answer.json()
    assert (said["name"], said["version"], said["created"], said["changed"]) == (
        "a-job",
        1,
        True,
        True,
    )
    assert said["state"] == "pending"
    assert said["sentence"] == "a-job is a new job"
    assert api.get(f"jobs/{said['id']}").json()["name"] == "a-job"
    assert Event.objects.get(what="submit").actor == "user:root"


def test_the_same_specification_again_changes_nothing_and_says_so(api):
    api.post("jobs", spec())
    answer = api.post("jobs", spec(count=1))
    assert answer.status_code == 200
    assert answer.json()["changed"] is False
    assert "unchanged" in answer.json()["sentence"]
    assert JobVersion.objects.count() == 1


def test_another_specification_is_a_new_version(api):
    api.post("jobs", spec())
    answer = api.post("jobs", spec(ask=2))
    assert answer.status_code == 200
    assert (answer.json()["version"], answer.json()["created"]) == (2, False)
    versions = api.get("jobs/a-job/versions").json()["items"]
    assert [(it["number"], it["spec"]["ask"]) for it in versions] == [(2, 2), (1, 1)]


def test_how_much_is_wanted_belongs_to_no_version(api):
    api.post("jobs", spec())
    answer = api.post("jobs", spec(count=2, priority=70, labels={"team": "data"})).json()
    assert (answer["version"], answer["changed"], answer["rerun"]) == (1, True, False)
    assert answer["sentence"] == (
        "a-job has changed: count from 1 to 2, priority from 50 to 70, other labels; "
        "it is at version 1"
    )
    shown = api.get("jobs/a-job").json()
    assert (shown["count"], shown["spec"]["count"], shown["spec"]["priority"]) == (2, 2, 70)
    [only] = api.get("jobs/a-job/versions").json()["items"]
    assert "count" not in only["spec"]


def test_a_stopped_job_that_is_submitted_as_it_was_runs_again_without_a_new_version(api):
    api.post("jobs", spec())
    api.post("jobs/a-job/stop")
    answer = api.post("jobs", spec()).json()
    assert (answer["version"], answer["changed"], answer["rerun"]) == (1, False, True)
    assert answer["sentence"] == "a-job runs again: round 2 of version 1"


def test_zero_slots_are_a_job(api):
    assert api.post("jobs", spec(count=0)).status_code == 201


def test_a_job_is_found_by_name_id_and_the_beginning_of_its_id(api):
    job = rows.job(name="found")
    for ref in ("found", str(job.pk), job.pk.hex, job.pk.hex[:8]):
        assert api.get(f"jobs/{ref}").json()["id"] == str(job.pk)


def test_an_id_names_what_has_it_and_not_what_is_called_so(api):
    job = rows.job(name="mine")
    rows.job(name=str(job.pk))
    assert api.get(f"jobs/{job.pk}").json()["name"] == "mine"


@pytest.mark.parametrize("ref", ["nobody", "ffffffff", "a%00b", "%2e%2e", ";a=b", "x" * 500, "é"])
def test_what_is_not_there_is_not_found(api, ref):
    answer = api.get(f"jobs/{ref}")
    assert answer.status_code == 404
    assert answer.json()["code"] in {"not-found", "no-such-address"}
    assert answer["Content-Type"] == "application/problem+json"


def test_a_stopped_job_may_be_stopped_again(api):
    rows.job(name="long")
    first = api.post("jobs/long/stop", {"reason": "enough"})
    assert (first.status_code, first.json()["stop_reason"]) == (200, "enough")
    again = api.post("jobs/long/stop")
    assert (again.status_code, again.json()["rev"]) == (200, first.json()["rev"])
    assert Event.objects.filter(what="stop").count() == 1


def test_a_rerun_begins_a_round(api):
    rows.job(name="again")
    answer = api.post("jobs/again/rerun")
    assert answer.status_code == 200
    assert answer.json()["round"] == 2


def test_validation_stores_nothing_and_shows_what_is_understood(api):
    answer = api.post("jobs/validate", spec())
    assert answer.json()["spec"]["task"]["resources"]["cpu"] == "100m"
    assert not Job.objects.exists()


def test_a_batch_may_run_again_what_has_ended(api):
    for name in ("ended", "running"):
        api.post("jobs", spec(name))
    Job.objects.filter(name="ended").update(state="completed")
    jobs = [spec("ended"), spec("running"), spec("new")]
    items = api.post("jobs/batch", {"jobs": jobs, "rerun": True}).json()["items"]
    found = [(it["name"], it["rerun"], it["changed"], it["state"]) for it in items]
    assert found == [
        ("ended", True, False, "pending"),
        ("running", False, False, "pending"),
        ("new", False, True, "pending"),
    ]
    assert dict(Job.objects.values_list("name", "round")) == {"ended": 2, "running": 1, "new": 1}
    assert Event.objects.get(what="rerun").message == "root reruns ended"


def test_a_changed_job_that_runs_again_forgets_what_its_slots_achieved(api):
    api.post("jobs", spec("ended"))
    achieved = Progress(round=1, since=Job.objects.get().round_at, completed=b"1")
    Job.objects.update(state="completed", progress=spec_cache.dump_progress(achieved))
    body = {"jobs": [spec("ended", priority=60)], "rerun": True}
    [item] = api.post("jobs/batch", body).json()["items"]
    job = Job.objects.get()
    assert (item["version"], job.state, job.round) == (1, "pending", 2)
    stored = spec_cache.load_progress(job.progress)
    assert stored == achieved
    assert stored.carried(job.round, job.round_at).completed == b""


def test_what_no_node_can_satisfy_is_warned_of_and_taken(api):
    rows.node(labels={"zone": "a", "disk": "ssd"})
    constraints = ["zone = a", "zone = b", "!spot", "dsik = ssd"]
    told = api.post("jobs", spec(constraints=constraints, spread=[{"over": "rack"}])).json()[
        "warnings"
    ]
    assert [(it["path"], it["message"]) for it in told] == [
        (
            "constraints.1",
            "'zone = a' and 'zone = b' exclude each other: no node can ever satisfy this, and the "
            "job waits",
        ),
        ("constraints.3", "no node of the cluster has the label 'dsik'"),
        ("spread.0.over", "no node of the cluster has the label 'rack'"),
    ]
    assert told[1]["hint"] == "Did you mean 'disk'?"
    assert Job.objects.exists()


def test_a_constraint_on_what_nodes_only_say_of_themselves_is_warned_of_with_the_cure(api):
    rows.node()
    told = api.post("jobs", spec(constraints=["arch = x86_64", "name = a", "node.arch"])).json()
    assert told["warnings"] == [
        {
            "path": "constraints.0",
            "message": "no node was given the label 'arch': nodes only say it of themselves",
            "hint": "Write 'node.arch' to take a node's own word, or "
            "`muster node label NODE arch=…`.",
        }
    ]


def test_the_name_of_a_node_is_a_label_that_it_has(api):
    rows.node()
    told = api.post("jobs", spec(constraints=["name = c-01"], spread=[{"over": "name"}])).json()
    assert told["warnings"] == []
    told = api.post("jobs", spec("near", constraints=["nmae = c-01"])).json()["warnings"]
    assert [it["hint"] for it in told] == ["Did you mean 'name'?"]


def test_a_batch_is_submitted_as_one(api, django_assert_max_num_queries):
    with django_assert_max_num_queries(15):
        answer = api.post("jobs/batch", {"jobs": [spec(f"job-{n}") for n in range(200)]})
    assert answer.status_code == 200
    assert [it["created"] for it in answer.json()["items"]] == [True] * 200
    assert Job.objects.count() == 200


def test_a_batch_is_listed_in_its_order_the_newest_first(api):
    names = [f"job-{n}" for n in (3, 1, 2, 5, 4, 7, 6)]
    api.post("jobs/batch", {"jobs": [spec(name) for name in names]})
    whole = [it["name"] for it in api.get("jobs").json()["items"]]
    assert whole == names[::-1]
    first = api.get("jobs?limit=4").json()
    rest = api.get(f"jobs?cursor={first['next_cursor']}").json()["items"]
    assert [it["name"] for it in [*first["items"], *rest]] == whole


def test_one_mistake_in_a_batch_stores_nothing(api):
    answer = api.post("jobs/batch", {"jobs": [spec("good"), spec("bad", count=-1), {}]})
    assert answer.status_code == 400
    paths = {it["path"] for it in answer.json()["errors"]}
    assert {"jobs.1.count", "jobs.2.name", "jobs.2.task"} <= paths
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        {"jobs": []},
        {"jobs": [spec(f"job-{n}") for n in range(501)]},
        {"jobs": "x"},
        {},
        {"jobs": [spec()], "job": 1},
        [],
    ],
)
def test_a_batch_has_one_to_five_hundred_jobs_and_nothing_else(api, body):
    assert api.post("jobs/batch", body).status_code == 400
    assert not Job.objects.exists()


def test_a_name_occurs_once_in_a_batch(api):
    answer = api.post("jobs/batch", {"jobs": [spec("twice"), spec("twice")]})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-spec")
    assert not Job.objects.exists()


def test_lists_are_filtered_by_what_is_allowed(api):
    rows.job(name="web-1")
    rows.job(name="web-2", state="running")
    rows.job(name="other")

    def names(query):
        return {it["name"] for it in api.get(f"jobs?{query}").json()["items"]}

    assert names("name=web-") == {"web-1", "web-2"}
    assert names("state=running,queued") == {"web-2"}
    assert names("type=batch&state=pending&name=web") == {"web-1"}
    assert names("name=%25_%25") == set()


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=501",
        f"limit={10**9}",
        "limit=abc",
        "sort=password",
        "filter[created_by__password__startswith]=a",
        "created_by__password__startswith=a",
        "state=nonsense",
        "type=batch,'; DROP TABLE",
        "name=" + "x" * 64,
        "name=%00",
        "cursor=forged",
        "cursor=" + "x" * 501,
    ],
)
def test_what_a_list_does_not_take_is_refused(api, query):
    answer = api.get(f"jobs?{query}")
    assert answer.status_code == 400
    assert answer.json()["code"] in {"invalid-parameter", "invalid-cursor"}


def test_pages_lead_through_everything_once(api):
    for number in range(7):
        rows.job(name=f"job-{number}")
    seen, cursor = [], ""
    while cursor is not None:
        page = api.get(f"jobs?limit=3&cursor={cursor}").json()
        seen += [it["name"] for it in page["items"]]
        cursor = page["next_cursor"]
    assert sorted(seen) == [f"job-{n}" for n in range(7)]
    assert len(seen) == len(set(seen)) == 7


def test_a_cursor_is_for_its_own_list_and_filters(api):
    for _ in range(3):
        rows.job()
    cursor = api.get("jobs?limit=1").json()["next_cursor"]
    assert api.get(f"jobs?limit=2&cursor={cursor}").status_code == 200
    for other in (f"jobs?state=pending&cursor={cursor}", f"executions?cursor={cursor}"):
        assert api.get(other).json()["code"] == "invalid-cursor"


def test_the_link_header_leads_on(api):
    for _ in range(2):
        rows.job()
    answer = api.get("jobs?limit=1&state=pending")
    address = answer["Link"].split(">")[0].removeprefix("</api/v1/")
    assert len(api.get(address).json()["items"]) == 1


@pytest.mark.parametrize("number", [1, 30])
def test_lists_cost_the_same_however_long(api, django_assert_num_queries, number):
    job, node = rows.job(name="many", count=number), rows.node(cpu=100_000)
    for slot in range(number):
        rows.execution(job, node, slot=slot)
        rows.job()
    api.get("jobs?limit=1")  # The token is known now.
    for path, queries in (
        ("jobs", 1),
        ("executions", 1),
        ("jobs/many/executions", 2),
        ("jobs/many/versions", 2),
        ("jobs/many/evaluations", 2),
        ("evaluations", 1),
        ("nodes", 1),
        ("jobs/many", 2),
        ("events", 2),
    ):
        with django_assert_num_queries(queries):
            assert api.get(path).status_code == 200, path


def test_executions_of_a_job_are_filtered(api):
    job, node = rows.job(name="some", count=3), rows.node()
    for slot, observed in enumerate(("new", "running", "completed")):
        rows.execution(job, node, slot=slot, observed=observed)

    def slots(query):
        return {it["slot"] for it in api.get(f"jobs/some/executions?{query}").json()["items"]}

    assert slots("observed=running,completed") == {1, 2}
    assert slots("slot=0") == {0}
    assert api.get("jobs/some/executions?observed=nonsense").status_code == 400
    assert len(api.get(f"executions?node={node.name}").json()["items"]) == 3


def test_an_execution_is_shown_with_its_history(api):
    execution = rows.execution(rows.job(), rows.node(), observed="completed")
    shown = api.get(f"executions/{execution.pk}").json()
    lanes = [(it["lane"], it["after"], it["writer"]) for it in shown["history"]]
    assert ("observed", "running", "endpoint") in lanes
    assert ("desired", "running", "state-updater") in lanes
    assert lanes[-1][1] in {"completed", "stopped"}
    assert shown["output"] is None
    assert Execution.objects.get().rev == shown["rev"]


def test_answers_are_json_for_everybody(api):
    assert json.loads(api.post("jobs", spec(labels={"a": "<b>é</b>"})).content)
    assert api.get("jobs/a-job").json()["labels"] == {"a": "<b>é</b>"}


# --- warnings --------------------------------------------------------------------------------


def with_driver(driver):
    return {**spec(), "name": f"for-{driver}", "task": {"driver": driver, "command": ["true"]}}


def test_a_driver_that_no_node_has_is_warned_of_and_the_job_is_taken(api):
    rows.node(attributes={"node.driver.docker": "true", "node.driver.docker.version": "27"})
    rows.node(attributes={"node.driver.wasm": "true"})
    rows.node(approval="rejected", attributes={"node.driver.dokcer": "true"})
    rows.node(attributes={"node.driver.dokcer": "false"}, labels={"driver.dokcer": "true"})
    for path, code in (("jobs/validate", 200), ("jobs", 201)):
        answer = api.post(path, with_driver("dokcer"))
        assert answer.status_code == code
        assert answer.json()["warnings"] == [
            {
                "path": "task.driver",
                "message": "no node of the cluster has the driver 'dokcer'; the job waits for one",
                "hint": "Did you mean 'docker'?",
            }
        ]


def test_a_driver_that_resembles_none_is_warned_of_with_those_that_there_are(api):
    empty = api.post("jobs/validate", with_driver("qemu")).json()["warnings"]
    assert [it["hint"] for it in empty] == ["No node has any yet."]
    rows.node(attributes={"node.driver.process": "true", "node.driver.wasm": "true"})
    [warning] = api.post("jobs/validate", with_driver("qemu")).json()["warnings"]
    assert warning["hint"] == "The nodes have: process, wasm."


def test_each_job_of_a_batch_has_its_own_warnings(api):
    rows.node()
    jobs = [with_driver("process"), with_driver("proces")]
    items = api.post("jobs/batch", {"jobs": jobs}).json()["items"]
    assert [len(it["warnings"]) for it in items] == [0, 1]


def test_a_repeated_submission_is_answered_with_the_same_warnings(api):
    answers = [api.post("jobs", with_driver("qemu"), Idempotency_Key="k") for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert answers[1].json()["warnings"]


def test_a_job_that_stops_waits_for_nothing_in_any_of_its_answers(api):
    job, waits = rows.job(), reasons.dump([reasons.AwaitsLost(1, ("c-01",))])
    Job.objects.filter(pk=job.pk).update(stop_requested=True, reason=waits)
    shown = api.get(f"jobs/{job.pk}").json()
    assert "c-01" not in shown["sentence"]
    assert (shown["reason"], shown["reasons"]) == ("", [])


def test_a_job_says_what_of_it_is_no_longer_kept(api):
    job, ended = rows.job(name="old"), datetime(2026, 9, 2, 14, 3, 11, tzinfo=UTC)
    assert api.get("jobs/old").json()["not_kept"] is None
    RemovedHistory.objects.create(job=job, executions=12, ended_before=ended)
    rows.made(job, ended - timedelta(days=300))
    begins = periods.begins()
    assert api.get("jobs/old").json()["not_kept"] == {
        "executions": 12,
        "evaluations": 0,
        "ended_before": "2026-09-02T14:03:11Z",
        "events_before": f"{begins:%Y-%m-%dT%H:%M:%SZ}",
        "sentence": "12 executions that ended before 2026-09-02 14:03:11 UTC are no longer kept; "
        f"events before {clock(begins)} are no longer kept",
    }
