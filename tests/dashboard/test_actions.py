import pytest
from django.contrib.auth.models import User
from django.test import Client

from nodes.models import Node
from orchestrator.models import BrokerRow, ClusterSetting, Job
from tests import rows

pytestmark = pytest.mark.django_db

ASKED = {"X-Requested-With": "muster"}


def test_a_stop_asks_for_it_with_who_and_why(operator):
    job = rows.job()
    answer = operator.post(f"/jobs/{job.pk}/stop", {"reason": "wrong image"}, headers=ASKED)
    job.refresh_from_db()
    assert answer.json() == {"message": f"Stop of {job.name} requested."}
    assert (job.stop_requested, job.stop_reason) == (True, "wrong image")


def test_a_reason_is_stored_whole_or_refused(operator):
    job = rows.job()
    answer = operator.post(f"/jobs/{job.pk}/stop", {"reason": "x" * 501}, headers=ASKED)
    job.refresh_from_db()
    assert (answer.status_code, job.stop_requested) == (400, False)
    assert answer.json() == {"message": "The reason is longer than 500 characters. Shorten it."}


@pytest.mark.parametrize("state", ["completed", "failed", "stopped"])
def test_a_stop_of_what_has_ended_says_that_nothing_changes(operator, state):
    job = rows.job(state=state)
    answer = operator.post(f"/jobs/{job.pk}/stop", {"reason": "x"}, headers=ASKED)
    assert answer.json() == {"message": f"{job.name} has ended already ({state}); nothing changes."}


def test_without_a_script_the_page_comes_back_with_the_sentence_on_it(operator):
    job = rows.job()
    answer = operator.post(
        f"/jobs/{job.pk}/stop", {"reason": "x"}, headers={"referer": "http://localhost/jobs/"},
        follow=True,
    )  # fmt: skip
    assert answer.redirect_chain == [("http://localhost/jobs/", 302)]
    assert f"Stop of {job.name} requested." in answer.content.decode()


def test_nobody_is_sent_to_another_site(operator):
    answer = operator.post(
        "/queue/pause", {"reason": "x"}, headers={"referer": "https://evil.example/"}
    )
    assert answer["Location"] == "/"


def test_an_ended_job_runs_again(operator):
    job = rows.job()
    Job.objects.filter(pk=job.pk).update(state="completed")
    assert operator.post(f"/jobs/{job.pk}/rerun", headers=ASKED).status_code == 200
    job.refresh_from_db()
    assert (job.state, job.round) == ("pending", 2)


@pytest.mark.parametrize(
    ("verb", "differing", "expected"),
    [
        ("approve", {"approval": "pending"}, {"approval": "approved"}),
        ("reject", {"approval": "pending"}, {"approval": "rejected"}),
        ("ineligible", {}, {"eligible": False}),
        ("eligible", {"eligible": False}, {"eligible": True}),
        ("drain", {}, {"draining": True}),
        ("undrain", {"draining": True}, {"draining": False}),
        ("release", {"quarantined": "two agents"}, {"quarantined": ""}),
    ],
)
def test_a_node_does_as_it_is_told(operator, verb, differing, expected):
    node = rows.node(**differing)
    assert operator.post(f"/nodes/{node.pk}/{verb}", headers=ASKED).status_code == 200
    assert Node.objects.values(*expected).get(pk=node.pk) == expected


def test_a_node_is_removed_and_its_page_becomes_its_history(operator):
    node = rows.node(name="n")
    for _ in range(2):
        answer = operator.post(f"/nodes/{node.pk}/remove", headers=ASKED)
        assert answer.json() == {"message": "n is removed; its name is free."}
    assert not Node.objects.exists()
    for address in (f"/nodes/{node.pk}/", "/nodes/n/"):
        page = operator.get(address).content.decode()
        assert "it is no node any longer; this is its history" in page
        assert "ana removes n" in page
        assert "/remove" not in page


def test_a_node_that_holds_something_says_so_before_it_is_asked_and_after(operator):
    node = rows.node(name="n")
    rows.execution(rows.job(name="etl"), node)
    assert (
        "It still holds 1 execution: stop their jobs" in operator.get("/nodes/n/").content.decode()
    )
    answer = operator.post(f"/nodes/{node.pk}/remove", headers=ASKED)
    assert answer.status_code == 409
    assert answer.json()["message"].startswith("n cannot be removed: it still holds 1 execution")


def test_a_quarantined_node_shows_what_to_do_and_the_button_that_ends_it(operator):
    node = rows.node(name="n", quarantined="its state directory was copied, and both copies run")
    for address in ("/nodes/n/", "/nodes/", "/"):
        page = operator.get(address).content.decode()
        assert "stop one of the two agents, then release the node" in page
        if address != "/":
            assert f"/nodes/{node.pk}/release" in page
            assert f"/nodes/{node.pk}/drain" not in page
    answer = operator.post(f"/nodes/{node.pk}/approve", headers=ASKED)
    assert answer.status_code == 409
    assert "`muster node release n`" in answer.json()["message"]


def test_a_degraded_node_says_why_it_takes_no_work_wherever_it_is_shown(operator):
    rows.node(name="n", degraded="its spawner does not answer")
    for address in ("/nodes/n/", "/nodes/", "/"):
        page = operator.get(address).content.decode()
        assert "t takes no new work: its spawner does not answer" in page, address
    assert "1 takes no new work" in page


def test_scheduling_is_paused_and_resumed(operator):
    operator.post("/queue/pause", {"reason": "db move"}, headers=ASKED)
    setting = ClusterSetting.objects.get()
    assert (setting.scheduling_paused, setting.paused_reason) == (True, "db move")
    assert setting.paused_by == "user:ana"
    operator.post("/queue/resume", headers=ASKED)
    assert not ClusterSetting.objects.get().scheduling_paused


def test_a_dead_letter_can_be_dropped(operator):
    job = rows.job()
    rows.dead_letter(job)
    assert operator.post(f"/jobs/{job.pk}/drop", headers=ASKED).status_code == 200
    assert not BrokerRow.objects.exists()


def test_a_verb_that_refuses_answers_with_its_sentence(operator):
    job = rows.job()
    answer = operator.post(f"/jobs/{job.pk}/retry", headers=ASKED)
    assert answer.status_code == 409
    assert "there is no dead letter of this job" in answer.json()["message"]


def test_a_job_is_evaluated_when_asked(operator):
    job = rows.job()
    answer = operator.post(f"/jobs/{job.pk}/evaluate", headers=ASKED)
    assert answer.json() == {"message": f"{job.name} will be evaluated now."}


def test_actions_need_a_post_a_token_a_person_and_a_role(viewer, keeper):
    job, node = rows.job(), rows.node(approval="pending")
    strict = Client(enforce_csrf_checks=True, headers={"host": "localhost"})
    strict.force_login(User.objects.create_superuser("eva"))
    assert viewer.get(f"/jobs/{job.pk}/stop").status_code == 405
    assert strict.post(f"/jobs/{job.pk}/stop", {"reason": "x"}).status_code == 403
    assert Client().post(f"/jobs/{job.pk}/stop", headers=ASKED).status_code == 401
    refused = viewer.post(f"/nodes/{node.pk}/approve", headers=ASKED)
    assert refused.status_code == 403
    assert refused.json() == {
        "message": "vera may not change nodes: that takes the role operator for all namespaces."
        " An admin for all namespaces gives roles, in /admin/."
    }
    assert keeper.post(f"/nodes/{node.pk}/approve", headers=ASKED).status_code == 200
    assert viewer.post(f"/jobs/{job.pk}/stop", headers=ASKED).status_code == 403
    job.refresh_from_db()
    assert not job.stop_requested
